//! "Did you mean": the nearest of the words that would have been right. Bounded in all its work.

use crate::bounds::MAX_COMPARISONS;

/// Words longer than this are never near anything.
const MAX_WORD: usize = 128;

/// Finds near words until the document has had its share of comparisons.
#[derive(Debug)]
pub(crate) struct Suggester {
    left: u32,
}

impl Default for Suggester {
    fn default() -> Self {
        Suggester { left: MAX_COMPARISONS }
    }
}

impl Suggester {
    /// The nearest candidate, if one is near enough to have been meant.
    pub(crate) fn nearest<'a>(&mut self, word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        if word.len() > MAX_WORD {
            return None;
        }
        let letters = word.chars().count();
        let allowed = (letters / 3).clamp(1, 3).min(letters.saturating_sub(1));
        let mut best: Option<(usize, &str)> = None;
        for candidate in candidates {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            if candidate.len().abs_diff(word.len()) > 8 || candidate.len() > MAX_WORD {
                continue;
            }
            let far = distance(word, candidate);
            if far <= allowed && best.is_none_or(|(nearest, _)| far < nearest) {
                best = Some((far, candidate));
            }
        }
        best.map(|(_, candidate)| candidate)
    }
}

/// Edits from one word to the other: a character added, removed, replaced, or two neighbours swapped
/// (optimal string alignment), whatever the case.
fn distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<Vec<_>>();
    let (a, b) = (fold(a), fold(b));
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let words = ["resolvers", "syslog", "games"];
        let near = |word| Suggester::default().nearest(word, words.into_iter());
        assert_eq!(near("resolver"), Some("resolvers"));
        assert_eq!(near("reslovers"), Some("resolvers"));
        assert_eq!(near("SYSLOG"), Some("syslog"));
        assert_eq!(near("mail"), None);
        assert_eq!((near(""), near("g")), (None, None));
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn its_work_is_bounded() {
        let mut suggester = Suggester { left: 1 };
        assert_eq!(suggester.nearest("ab", ["ax", "ab"].into_iter()), Some("ax"));
        assert_eq!(suggester.nearest("ab", ["ab"].into_iter()), None);
    }
}
