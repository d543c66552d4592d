//! Which seed each item of a batch gets.

use crate::coerce::Seed;

/// One seed per item. `random` draws a 32-bit seed.
///
/// With `use_random_seed` the given seeds are ignored. Otherwise they go to the items in order;
/// items without one are drawn. In a list, blank items, `-1` and texts that are no number are
/// left out, fractions are truncated.
pub fn seeds(
    given: Option<&Seed>,
    use_random_seed: bool,
    items: usize,
    random: &mut dyn FnMut() -> u32,
) -> Vec<u64> {
    let mut seeds = match given {
        Some(seed) if !use_random_seed => usable(seed),
        _ => Vec::new(),
    };
    seeds.truncate(items);
    while seeds.len() < items {
        seeds.push(u64::from(random()));
    }
    seeds
}

/// How many usable seeds a request names.
pub fn given(seed: Option<&Seed>) -> usize {
    seed.map_or(0, |seed| usable(seed).len())
}

/// The seeds of a request, without those that mean "draw one".
fn usable(seed: &Seed) -> Vec<u64> {
    match seed {
        Seed::Number(n) => u64::try_from(*n).ok().into_iter().collect(),
        Seed::List(text) => text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty() && *item != "-1")
            .filter_map(|item| {
                // Whole numbers are exact; anything else goes through a float and is truncated.
                item.parse::<u64>().ok().or_else(|| {
                    let x = item.parse::<f64>().ok()?.trunc();
                    (x >= 0.0 && x < u64::MAX as f64).then_some(x as u64)
                })
            })
            .collect(),
    }
}

/// The seeds as `seed_value` shows them.
pub fn text(seeds: &[u64]) -> String {
    seeds
        .iter()
        .map(u64::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Option<Seed> {
        Some(Seed::List(text.into()))
    }

    #[test]
    fn the_rules() {
        // Drawn seeds are 1000, 1001, ...
        let cases: &[(Option<Seed>, bool, usize, &[u64])] = &[
            (None, true, 2, &[1000, 1001]),
            (Some(Seed::Number(42)), true, 2, &[1000, 1001]),
            (Some(Seed::Number(42)), false, 1, &[42]),
            (Some(Seed::Number(42)), false, 3, &[42, 1000, 1001]),
            (Some(Seed::Number(0)), false, 1, &[0]),
            (Some(Seed::Number(-1)), false, 1, &[1000]),
            (Some(Seed::Number(-7)), false, 1, &[1000]),
            (None, false, 1, &[1000]),
            (list("1,2,3"), false, 2, &[1, 2]),
            (list(" 1 , ,-1, 2.9 ,x"), false, 3, &[1, 2, 1000]),
            (list("18446744073709551615"), false, 1, &[u64::MAX]),
            (list("nan,inf"), false, 1, &[1000]),
            (list("abc"), false, 1, &[1000]),
            (list("5"), false, 2, &[5, 1000]),
        ];
        for (given, use_random, items, expected) in cases {
            let mut next = 999;
            let mut random = || {
                next += 1;
                next
            };
            let got = seeds(given.as_ref(), *use_random, *items, &mut random);
            assert_eq!(got, *expected, "{given:?} {use_random} {items}");
        }
    }

    #[test]
    fn shown_without_blanks() {
        assert_eq!(text(&[1, 22]), "1,22");
    }
}
