fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|s| s.parse().unwrap()).collect();
    let (f, t) = (a[0], *a.get(1).unwrap_or(&(a[0] + 1)));
    let mut n = 0;
    for s in f..t {
        let r = kakei_sim::run_http(s);
        if let Some(v) = r.violations.first() {
            n += 1;
            if n < 8 {
                println!("{s}: {}", v.chars().take(400).collect::<String>());
            }
        }
    }
    println!("{n} broken of {}", t - f);
}
