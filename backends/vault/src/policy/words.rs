//! A route's pattern and path, in Vault's words.

use std::collections::BTreeSet;

use super::Covered;

/// The most segments of a reference's name: [`Reference`](keyhaul_core::Reference) has 2 to 8, and
/// the first is the scope.
const MAX_NAME: usize = 7;

/// A path in a store in Vault's patterns, and what it covers besides what the route does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path {
    pub(super) text: String,
    pub(super) wider: Option<String>,
}

impl Path {
    /// The folders that are to be listed to find what the path matches, and that it does not cover itself.
    pub(super) fn folders(&self) -> Vec<String> {
        let words: Vec<&str> = self.text.split('/').collect();
        let wild = |word: &str| word == "+" || (word.len() > 1 && word.ends_with('*'));
        (0..words.len())
            .filter(|index| wild(words[*index]))
            .map(|index| {
                words[..index]
                    .iter()
                    .map(|word| format!("{word}/"))
                    .collect()
            })
            .collect()
    }
}

/// The paths that a route covers.
pub(super) fn paths_of(route: &Covered) -> Vec<Path> {
    let mut pattern: Vec<&str> = route.pattern.split('/').collect();
    pattern.dedup_by(|one, other| *one == "**" && *other == "**");
    let mut paths = BTreeSet::new();
    for (scope, name) in subjects(&pattern) {
        for (name, below) in names(name, route.path.ends_with("{name}")) {
            // `below` is anything further down, of which an empty name has one segment at least.
            let end = if below { "\0" } else { "" };
            let name = match (name.is_empty(), below) {
                (true, true) => end.to_owned(),
                (false, true) => format!("{}/{end}", name.join("/")),
                (_, false) => name.join("/"),
            };
            let filled = route
                .path
                .replace("{scope}", scope)
                .replace("{name}", &name);
            paths.insert(in_vaults_words(&filled, route));
        }
    }
    paths.into_iter().collect()
}

/// The patterns of scope and name that a pattern over both comes to.
fn subjects<'p>(pattern: &[&'p str]) -> Vec<(&'p str, Vec<&'p str>)> {
    match pattern {
        [] => vec![],
        ["**", rest @ ..] => {
            let mut name = vec!["**"];
            name.extend(rest);
            let mut all = vec![("*", name)];
            // The wildcard may also be for nothing.
            all.extend(subjects(rest));
            all
        }
        [_] => vec![],
        [scope, name @ ..] => vec![(*scope, name.to_vec())],
    }
}

/// The names of fixed length that a name's pattern comes to, each with whether anything below it
/// is meant, which only Vault's `*` at the very end can say.
fn names(pattern: Vec<&str>, at_end: bool) -> Vec<(Vec<&str>, bool)> {
    let fixed = pattern.iter().filter(|segment| **segment != "**").count();
    let mut all = vec![(Vec::new(), false)];
    for (index, segment) in pattern.iter().enumerate() {
        if *segment != "**" {
            for (name, _) in &mut all {
                name.push(*segment);
            }
        } else if at_end && index + 1 == pattern.len() {
            // With the segments before it alone, too: it may be for nothing.
            let mut below = all.clone();
            below.iter_mut().for_each(|(_, below)| *below = true);
            all.extend(below);
        } else {
            let most = MAX_NAME.saturating_sub(fixed);
            all = all
                .iter()
                .flat_map(|(name, below)| {
                    (0..=most).map(move |more| {
                        let mut name = name.clone();
                        name.extend(std::iter::repeat_n("*", more));
                        (name, *below)
                    })
                })
                .collect();
        }
    }
    all.retain(|(name, below)| name.len() <= MAX_NAME && (*below || !name.is_empty()));
    all
}

/// A path with our wildcards, and a NUL for anything at the end, in Vault's.
fn in_vaults_words(filled: &str, route: &Covered) -> Path {
    let (filled, below) = match filled.strip_suffix('\0') {
        Some(filled) => (filled, true),
        None => (filled, false),
    };
    let mut words: Vec<&str> = Vec::new();
    let mut unsaid = Vec::new();
    let segments: Vec<&str> = filled.split('/').collect();
    let last = segments.len() - 1;
    for (index, segment) in segments.iter().copied().enumerate() {
        // What stands before the end's wildcard belongs to it: `vms/pre-` of `vms/pre-*`.
        let open = below && index == last;
        match segment.split_once('*') {
            _ if segment == "*" && !open => words.push("+"),
            None => words.push(segment),
            Some(("", "")) => words.push(""),
            Some(("", _)) => {
                unsaid.push(segment);
                words.push("+");
            }
            // Other scopes are shut out rather than other names below the right ones.
            Some((start, rest)) => {
                let rest_is_any =
                    below && rest.is_empty() && index + 1 == last && segments[last].is_empty();
                if !rest_is_any {
                    unsaid.push(segment);
                }
                words.push(start);
                let text = format!("{}*", words.join("/"));
                let wider = (!rest_is_any)
                    .then(|| note(route, &text, &segment_and_rest(&segments[index..], below)));
                return Path { text, wider };
            }
        }
    }
    let text = words.join("/") + if below { "*" } else { "" };
    let wider = (!unsaid.is_empty()).then(|| note(route, &text, &unsaid.join("` and `")));
    Path { text, wider }
}

fn segment_and_rest(segments: &[&str], below: bool) -> String {
    segments.join("/") + if below { "**" } else { "" }
}

fn note(route: &Covered, text: &str, unsaid: &str) -> String {
    format!(
        "Wider than the route `{}`: Vault has no words for `{unsaid}`, so this is `{text}`.",
        route.pattern
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(pattern: &str, path: &str) -> Vec<(String, bool)> {
        let paths = paths_of(&Covered::new(pattern, path));
        let told = paths
            .into_iter()
            .map(|path| (path.text, path.wider.is_some()));
        told.collect()
    }

    fn exactly(pattern: &str, path: &str, expected: &[&str]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|text| ((*text).to_owned(), false))
            .collect();
        assert_eq!(paths(pattern, path), expected, "{pattern} {path}");
    }

    #[test]
    fn what_vault_has_words_for_is_said_exactly() {
        let template = "vms/{scope}/{name}";
        exactly("web01/root", template, &["vms/web01/root"]);
        exactly("*/root", template, &["vms/+/root"]);
        exactly("web01/*", template, &["vms/web01/+"]);
        exactly("web01/**", template, &["vms/web01/*"]);
        exactly("**", template, &["vms/+/*"]);
        exactly(
            "@site/tls/**",
            template,
            &["vms/@site/tls", "vms/@site/tls/*"],
        );
        exactly("prod-*/**", template, &["vms/prod-*"]);
        exactly("**", "one/fixed", &["one/fixed"]);
        exactly(
            "a/**/b",
            "{scope}/{name}",
            &[
                "a/+/+/+/+/+/+/b",
                "a/+/+/+/+/+/b",
                "a/+/+/+/+/b",
                "a/+/+/+/b",
                "a/+/+/b",
                "a/+/b",
                "a/b",
            ],
        );
        exactly(
            "**/a/b",
            "x/{name}/y",
            &[
                "x/+/+/+/+/+/a/b/y",
                "x/+/+/+/+/a/b/y",
                "x/+/+/+/a/b/y",
                "x/+/+/a/b/y",
                "x/+/a/b/y",
                "x/a/b/y",
                "x/b/y",
            ],
        );
    }

    #[test]
    fn what_vault_has_no_words_for_is_wider_and_says_so() {
        let template = "vms/{scope}/{name}";
        for (pattern, expected) in [
            ("prod-*/root", "vms/prod-*"),
            ("*-prod/root", "vms/+/root"),
            ("web01/root-*", "vms/web01/root-*"),
            ("web01/*-root", "vms/web01/+"),
        ] {
            assert_eq!(paths(pattern, template), [(expected.to_owned(), true)]);
        }
    }

    /// Vault's rule, as its documentation has it: `+` is one segment, a `*` at the very end anything.
    fn vault_allows(rule: &str, path: &str) -> bool {
        fn segments(rule: &[&str], path: &[&str], glob: bool) -> bool {
            match (rule, path) {
                ([last], [first, rest @ ..]) if glob => {
                    let rest = if rest.is_empty() {
                        String::new()
                    } else {
                        format!("/{}", rest.join("/"))
                    };
                    *last == "+" || format!("{first}{rest}").starts_with(last)
                }
                ([], []) => true,
                ([one, rule @ ..], [first, path @ ..]) => {
                    (*one == "+" || one == first) && segments(rule, path, glob)
                }
                _ => false,
            }
        }

        let (rule, glob) = match rule.strip_suffix('*') {
            Some(rule) => (rule, true),
            None => (rule, false),
        };
        let rule: Vec<&str> = rule.split('/').collect();
        let path: Vec<&str> = path.split('/').collect();
        segments(&rule, &path, glob)
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_route_covers_is_allowed_and_nothing_else_where_no_comment_says_so(
            pattern in "(\\*\\*|[ab*]{1,2})(/(\\*\\*|[ab*]{1,2})){0,3}",
            template in proptest::sample::select(vec!["{scope}/{name}", "vms/{scope}/{name}", "{name}", "v/{name}/{scope}", "{scope}-x/{name}"]),
            subject in "[ab]{1,2}(/[ab]{1,2}){1,4}",
        ) {
            use keyhaul_core::{Policy, Reference};

            let text = format!(
                "version = 1\n[stores.s]\nurl = \"x:y\"\n[[routes]]\nmatch = \"{pattern}\"\nstore = \"s\"\npath = \"{template}\"\n"
            );
            // Some of what is made up here is no pattern.
            if let Ok(policy) = Policy::parse("policy", &text) {
                let reference = Reference::parse(&subject).expect("valid");
                let (scope, name) = subject.split_once('/').expect("two segments");
                let path = template.replace("{scope}", scope).replace("{name}", name);
                let rules = paths_of(&Covered::new(&pattern, template));
                let allowed = rules.iter().any(|rule| vault_allows(&rule.text, &path));
                let covered = policy.target(&reference).is_ok();
                let wider = rules.iter().any(|rule| rule.wider.is_some());
                proptest::prop_assert!(allowed || !covered, "{pattern} {template} {subject}: {rules:?}");
                // Where scope and name cannot be told apart in the path, another subject may lead there.
                let plain = template.ends_with("{scope}/{name}");
                proptest::prop_assert!(covered || wider || !allowed || !plain, "{pattern} {template} {subject}: {rules:?}");
            }
        }
    }
}
