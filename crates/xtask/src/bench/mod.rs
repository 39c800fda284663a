//! Benchmarks side by side with other proxies. Changes nothing in the tree but what it is told to write.

/// Run the benchmark that `args` name.
pub fn run(args: &[String]) -> Result<(), String> {
    Err(format!("there is no benchmark `{}`", args.join(" ")))
}
