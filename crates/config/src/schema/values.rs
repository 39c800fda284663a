//! Plain values: flags, whole numbers, words out of a list, durations, sizes, names, paths. Nothing about the network.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::{At, Codec, Maybe, Shape, listed, shape};
use crate::bounds::MAX_NAME_BYTES;
use crate::diagnostics::{Collector, Diagnostic, is_secret, is_telling, quoted};
use crate::model::Name;
use crate::tree::Value;

/// Reports a value of the wrong type.
pub(super) fn mismatch<'p>(at: &At<'_>, wanted: &str, problems: &'p mut Collector) -> &'p mut Diagnostic {
    let found = match &at.node.value {
        Value::Text(_) if is_secret(&at.pointer()) => "a string".to_owned(),
        value => found(value),
    };
    at.report(format!("{} must be {wanted}, found {found}", at.subject()), problems)
}

/// A value in a message.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => format!("the flag `{flag}`"),
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}, which isn't whole"),
        Value::Text(text) if is_telling(text) => "a string".into(),
        Value::Text(text) => format!("the string `{}`", quoted(text)),
        Value::Datetime(_) => "a date or time".into(),
        Value::List(_) => "a list".into(),
        Value::Table(_) => "a table".into(),
    }
}

/// The text of a value, or a report that it should have been one.
pub(super) fn text<'a>(at: &At<'a>, wanted: impl fmt::Display, problems: &mut Collector) -> Option<&'a str> {
    match &at.node.value {
        Value::Text(text) => Some(text),
        _ => {
            mismatch(at, &wanted.to_string(), problems);
            None
        }
    }
}

/// `true` or `false`.
pub(super) struct Flag;

impl Codec for Flag {
    type Of = bool;

    fn describe(&self) -> String {
        "`true` or `false`".into()
    }

    fn shape(&self) -> Shape {
        shape::of("boolean")
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<bool> {
        match at.node.value {
            Value::Bool(flag) => Some(flag),
            _ => {
                mismatch(at, "`true` or `false`", problems);
                None
            }
        }
    }

    fn write(&self, value: &bool) -> Option<Value> {
        Some(Value::Bool(*value))
    }
}

/// A whole number in a range.
pub(super) struct Whole<T> {
    pub(super) min: T,
    pub(super) max: T,
    /// What 0 means, where it means something of its own.
    pub(super) zero: Option<&'static str>,
}

impl<T: Copy + Into<u32> + TryFrom<i128>> Codec for Whole<T> {
    type Of = T;

    fn describe(&self) -> String {
        let zero = self.zero.map(|zero| format!("; 0: {zero}")).unwrap_or_default();
        let (min, max) = (self.min.into(), self.max.into());
        format!("whole number, {min} to {max}{zero}")
    }

    fn shape(&self) -> Shape {
        shape::whole(self.min.into(), self.max.into())
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<T> {
        let (min, max) = (self.min.into(), self.max.into());
        match at.node.value {
            Value::Integer(number) if number >= i128::from(min) && number <= i128::from(max) => {
                T::try_from(number).ok()
            }
            _ => {
                mismatch(at, &format!("a whole number from {min} to {max}"), problems);
                None
            }
        }
    }

    fn write(&self, value: &T) -> Option<Value> {
        Some(Value::Integer((*value).into().into()))
    }
}

/// A number of things, any.
pub(super) const UNLIMITED: Whole<u32> = Whole { min: 0, max: u32::MAX, zero: Some("unlimited") };

/// A port, where another one than usual is meant.
pub(super) const PORT: Maybe<Whole<u16>> = Maybe(Whole { min: 1, max: u16::MAX, zero: None });

/// One word of a closed list.
pub(super) struct Words<T: 'static> {
    pub(super) of: &'static [(&'static str, T)],
    /// Words that later versions know.
    pub(super) later: &'static [&'static str],
}

impl<T: Copy + PartialEq> Codec for Words<T> {
    type Of = T;

    fn describe(&self) -> String {
        listed(self.of.iter().map(|(word, _)| *word))
    }

    fn shape(&self) -> Shape {
        shape::words(self.of.iter().map(|(word, _)| *word))
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<T> {
        let known = self.of.iter().map(|(word, _)| *word);
        let wanted = fmt::from_fn(|f| {
            let one_of = if self.of.len() > 1 { "one of " } else { "" };
            write!(f, "{one_of}{}", listed(known.clone()))
        });
        let word = text(at, &wanted, problems)?;
        let meant = self.of.iter().find(|(known, _)| *known == word);
        if meant.is_none() && self.later.contains(&word) {
            let subject = at.subject();
            at.report(format!("{subject} is `{word}`, which this version doesn't support yet"), problems)
                .help(format!("this version knows {}", listed(known)));
        } else if meant.is_none() {
            let near = problems.suggester.nearest(word, known.clone());
            let diagnostic = mismatch(at, &wanted.to_string(), problems);
            if let Some(near) = near {
                diagnostic.help(format!("did you mean `{near}`?"));
            }
        }
        meant.map(|(_, value)| *value)
    }

    fn write(&self, value: &T) -> Option<Value> {
        self.of.iter().find(|(_, known)| known == value).map(|(word, _)| Value::text(*word))
    }
}

/// A duration in a range.
pub(super) struct Time {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

/// Ten years of 365 days: longer is a mistake, and keeps sums of durations far from overflowing.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Codec for Time {
    type Of = Duration;

    fn describe(&self) -> String {
        format!("duration, {} to {}", write_duration(self.min), write_duration(self.max))
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Duration> {
        const WANTED: &str = "a duration like \"30s\", \"250ms\" or \"1m30s\"";
        let read = match &at.node.value {
            Value::Text(text) => read_duration(text),
            _ => None,
        };
        let Some(read) = read else {
            let diagnostic = mismatch(at, WANTED, problems);
            match &at.node.value {
                Value::Integer(number) if *number >= 0 => {
                    diagnostic
                        .help(format!("a unit is needed: \"{number}s\" for seconds, \"{number}ms\" for milliseconds"));
                }
                Value::Text(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                    let text = quoted(text);
                    diagnostic
                        .help(format!("a unit is needed: \"{text}s\" for seconds, \"{text}ms\" for milliseconds"));
                }
                _ => {
                    diagnostic.help("units are d, h, m, s, ms, us and ns, the larger first");
                }
            }
            return None;
        };
        if read < self.min || read > self.max {
            let (min, max) = (write_duration(self.min), write_duration(self.max));
            mismatch(at, &format!("a duration from {min} to {max}"), problems);
            return None;
        }
        Some(read)
    }

    fn write(&self, value: &Duration) -> Option<Value> {
        Some(Value::text(write_duration(*value)))
    }
}

/// Whole numbers with units, the larger unit first, each unit once.
pub(crate) fn read_duration(text: &str) -> Option<Duration> {
    let mut total: u128 = 0;
    let mut rest = text;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (_, nanos) = units.find(|(unit, _)| *unit == &rest[..letters])?;
        total = total.checked_add(u128::from(number) * nanos)?;
        rest = &rest[letters..];
    }
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    (!text.is_empty()).then(|| Duration::new(seconds, (total % 1_000_000_000) as u32))
}

/// The shortest text that reads back as the same duration, without days.
pub(super) fn write_duration(duration: Duration) -> String {
    let mut left = duration.as_nanos();
    let mut text = String::new();
    for (unit, nanos) in &UNITS[1..] {
        if left >= *nanos {
            // Writing into a string can't fail.
            let _ = write!(text, "{}{unit}", left / nanos);
            left %= nanos;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// A duration, or `"none"`.
pub(super) struct TimeOrNone(pub(super) Time);

impl Codec for TimeOrNone {
    type Of = Option<Duration>;

    fn describe(&self) -> String {
        format!("`none`, or {}", self.0.describe())
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Option<Duration>> {
        match &at.node.value {
            Value::Text(text) if text == "none" => Some(None),
            _ => self.0.read(at, problems).map(Some),
        }
    }

    fn write(&self, value: &Option<Duration>) -> Option<Value> {
        value.map_or_else(|| Some(Value::text("none")), |value| self.0.write(&value))
    }
}

/// A number of bytes in a range.
pub(super) struct Size {
    pub(super) min: u32,
    pub(super) max: u32,
}

const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

impl Codec for Size {
    type Of = u32;

    fn describe(&self) -> String {
        format!("size, {}B to {}B", self.min, self.max)
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<u32> {
        let read = match &at.node.value {
            Value::Text(text) => read_size(text),
            _ => None,
        };
        let Some(read) = read else {
            let diagnostic = mismatch(at, "a size like \"1500B\" or \"64KiB\"", problems);
            match &at.node.value {
                Value::Integer(number) if *number >= 0 => diagnostic.help(format!("a unit is needed: \"{number}B\"")),
                _ => diagnostic.help(format!("units are {}", SIZES.map(|(unit, _)| unit).join(", "))),
            };
            return None;
        };
        let fits = u32::try_from(read).ok().filter(|size| (self.min..=self.max).contains(size));
        if fits.is_none() {
            mismatch(at, &format!("a size from {}B to {}B", self.min, self.max), problems);
        }
        fits
    }

    fn write(&self, value: &u32) -> Option<Value> {
        Some(match value {
            0 => Value::text("0B"),
            bytes if bytes % 1024 == 0 => Value::text(format!("{}KiB", bytes / 1024)),
            bytes => Value::text(format!("{bytes}B")),
        })
    }
}

/// A number of bytes, of which 0 is any number.
pub(super) struct Volume;

/// A pebibyte: more is a mistake.
const LARGEST: u64 = 1 << 50;

impl Codec for Volume {
    type Of = u64;

    fn describe(&self) -> String {
        "size, up to 1048576GiB; `0`: unlimited".into()
    }

    fn shape(&self) -> Shape {
        shape::either([shape::text(&self.describe()), shape::whole(0, 0)])
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<u64> {
        let read = match &at.node.value {
            Value::Text(text) if text == "0" => Some(0),
            Value::Text(text) => read_size(text),
            Value::Integer(0) => Some(0),
            _ => None,
        };
        let fits = read.filter(|size| *size <= LARGEST);
        if fits.is_none() {
            mismatch(at, "a size like \"10MiB\" up to 1048576GiB, or \"0\" for any", problems)
                .help(format!("units are {}", SIZES.map(|(unit, _)| unit).join(", ")));
        }
        fits
    }

    fn write(&self, value: &u64) -> Option<Value> {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
        let (unit, bytes) = *units.iter().find(|(_, bytes)| value.is_multiple_of(*bytes))?;
        Some(if *value == 0 { Value::text("0") } else { Value::text(format!("{}{unit}", value / bytes)) })
    }
}

fn read_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (_, bytes) = SIZES.iter().find(|(unit, _)| *unit == &text[digits..])?;
    text[..digits].parse::<u64>().ok()?.checked_mul(*bytes)
}

/// The name of another object.
pub(super) struct Reference(pub(super) &'static str);

impl Codec for Reference {
    type Of = Name;

    fn describe(&self) -> String {
        format!("name of a {}", self.0)
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Name> {
        let name = text(at, format_args!("the name of a {}", self.0), problems)?;
        match wrong_name(name, NAME_SIGNS) {
            Some(wrong) => {
                at.report(format!("{}: {wrong}", at.subject()), problems);
                None
            }
            None => Some(problems.name(name)),
        }
    }

    fn write(&self, value: &Name) -> Option<Value> {
        Some(Value::text(value.as_str().to_owned()))
    }
}

/// The signs that a name may have.
pub(super) const NAME_SIGNS: &str = "._:/[]-";

/// Why a text can't be a name.
pub(super) fn wrong_name(text: &str, signs: &str) -> Option<String> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES {
        return Some(format!("a name has 1 to {MAX_NAME_BYTES} characters, this one has {}", text.len()));
    }
    let wrong = text.chars().find(|c| !c.is_ascii_alphanumeric() && !signs.contains(*c))?;
    let wrong = wrong.escape_debug();
    Some(format!(
        "a name is made of ASCII letters, digits and `{signs}`, `{}` has the character `{wrong}`",
        quoted(text)
    ))
}

/// A file's path.
pub(super) struct Path {
    pub(super) what: &'static str,
    pub(super) longest: usize,
}

impl Codec for Path {
    type Of = String;

    fn describe(&self) -> String {
        self.what.into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<String> {
        let path = text(at, self.what, problems)?;
        let wrong = match path {
            "" => "is empty".to_owned(),
            _ if path.contains('\0') => "contains a zero byte".to_owned(),
            _ if path.len() > self.longest => {
                format!("has {} bytes; at most {} are possible", path.len(), self.longest)
            }
            _ => return Some(path.to_owned()),
        };
        at.report(format!("{} {wrong}", at.subject()), problems);
        None
    }

    fn write(&self, value: &String) -> Option<Value> {
        Some(Value::text(value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let nanos = |text| read_duration(text).map(|duration| duration.as_nanos());
        assert_eq!(nanos("30s"), Some(30_000_000_000));
        assert_eq!(nanos("1m30s"), Some(90_000_000_000));
        assert_eq!(nanos("1h2m3s4ms5us6ns"), Some(3_723_004_005_006));
        assert_eq!(nanos("0s"), Some(0));
        assert_eq!(nanos("2d"), Some(172_800_000_000_000));
        for wrong in ["", "s", "30", "1.5s", "-1s", "30s1m", "1s1s", "1 s", "1w", "99999999999999999999s", "1sm", "é"]
        {
            assert_eq!(nanos(wrong), None, "{wrong}");
        }
        assert_eq!(nanos("18446744073709551615d"), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(read_size("64KiB"), Some(65_536));
        assert_eq!(read_size("1500B"), Some(1_500));
        assert_eq!(read_size("2kB"), Some(2_000));
        for wrong in ["", "B", "64", "64K", "64 KiB", "-1B", "18446744073709551615GiB"] {
            assert_eq!(read_size(wrong), None, "{wrong}");
        }
    }
}
