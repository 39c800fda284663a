//! `key=value` arguments for the child processes and `--flag value` for people. Knows no benchmark.

use std::collections::BTreeMap;
use std::str::FromStr;

/// What a child process was told, as `key=value` words.
pub(super) struct Words(BTreeMap<String, String>);

impl Words {
    /// Read `key=value` words; a word without `=` is an error.
    pub(super) fn read(args: &[String]) -> Result<Words, String> {
        args.iter()
            .map(|word| {
                let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not key=value"))?;
                Ok((key.to_owned(), value.to_owned()))
            })
            .collect::<Result<_, String>>()
            .map(Words)
    }

    /// The value of `key`, which must be there.
    pub(super) fn get<T: FromStr>(&self, key: &str) -> Result<T, String> {
        let text = self.0.get(key).ok_or_else(|| format!("`{key}=` is missing"))?;
        text.parse().map_err(|_| format!("`{key}={text}` can't be read"))
    }
}

/// The options a person gave: `--flag`, `--key value`.
pub(super) struct Options {
    flags: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Options {
    /// Read options; `flags` take no value, `keys` take one, anything else is an error.
    pub(super) fn read(args: &[String], flags: &[&str], keys: &[&str]) -> Result<Options, String> {
        let mut options = Options { flags: Vec::new(), values: BTreeMap::new() };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let name = arg.strip_prefix("--").ok_or_else(|| format!("`{arg}` is not an option"))?;
            if flags.contains(&name) {
                options.flags.push(name.to_owned());
            } else if keys.contains(&name) {
                let value = rest.next().ok_or_else(|| format!("`{arg}` needs a value"))?;
                options.values.insert(name.to_owned(), value.clone());
            } else {
                let known: Vec<_> = flags.iter().chain(keys).map(|k| format!("--{k}")).collect();
                return Err(format!("there is no option `{arg}`; there are {}", known.join(", ")));
            }
        }
        Ok(options)
    }

    /// Whether `--name` was given.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|f| f == name)
    }

    /// The text after `--name`, where it was given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The value after `--name`, or `default`.
    pub(super) fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        match self.values.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("`--{name} {text}` can't be read")),
        }
    }

    /// The words after `--name`, split at commas; `None` where it was not given.
    pub(super) fn list(&self, name: &str) -> Option<Vec<String>> {
        self.text(name).map(|text| text.split(',').map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn an_unknown_option_is_refused_and_names_the_known_ones() {
        let err = Options::read(&words("--smoke --what 3"), &["smoke"], &["json"]).err().unwrap();
        assert!(err.contains("--what") && err.contains("--smoke") && err.contains("--json"), "{err}");
    }

    #[test]
    fn values_and_lists_are_read() {
        let options = Options::read(&words("--only a,b --rounds 7"), &[], &["only", "rounds"]).unwrap();
        assert_eq!(options.list("only").unwrap(), ["a", "b"]);
        assert_eq!(options.get("rounds", 1u32).unwrap(), 7);
        assert!(!options.flag("smoke"));
    }
}
