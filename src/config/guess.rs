//! "Did you mean": the nearest of the names that would have been right. A guess only, never a correction.

/// The nearest of `names`, if one is near enough that a slip of the hand explains the difference.
pub(super) fn nearest<'a>(said: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let said = said.to_lowercase();
    let allowed = said.chars().count().div_ceil(3).clamp(1, 4);
    names
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let stem = said.len() >= 4 && lower.len() >= 4 && (lower.starts_with(&said) || said.starts_with(&lower));
            let distance = distance(&said, &lower);
            (distance <= allowed || stem).then_some((distance, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words (optimal string alignment).
/// Words beyond 64 characters are as far apart as they are long.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(65).collect(), b.chars().take(65).collect());
    if a.len() > 64 || b.len() > 64 {
        return a.len().max(b.len());
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

/// `did you mean `x`?`
pub(super) fn did_you_mean<'a>(said: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(said, names).map(|name| format!("did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_finds_its_name() {
        let names = ["weight", "addresses", "name", "near", "capacity"];
        for (said, meant) in
            [("wieght", "weight"), ("wheight", "weight"), ("address", "addresses"), ("Name", "name"), ("nera", "near")]
        {
            assert_eq!(nearest(said, names), Some(meant), "{said}");
        }
        assert_eq!(nearest("completely-else", names), None);
        assert_eq!(nearest("", names), None);
    }

    #[test]
    fn distances_count_slips() {
        for (a, b, d) in [("", "", 0), ("a", "", 1), ("ab", "ba", 1), ("kitten", "sitting", 3), ("probe", "porbe", 1)] {
            assert_eq!(distance(a, b), d, "{a} {b}");
            assert_eq!(distance(b, a), d, "{b} {a}");
        }
    }
}
