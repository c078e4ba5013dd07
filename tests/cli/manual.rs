//! The manual pages against the programs: every option of `--help` is there, as it is written, with
//! its default, and nothing else is.

use std::collections::BTreeMap;

use crate::support::printed;

/// Options and their short forms and arguments, as `--help` has them, with its default.
fn from_help(program: &str) -> BTreeMap<String, (String, String)> {
    let help = printed(&format!("{program} --help"));
    let (options, _) = help.split_once("\nSPEC can be given").unwrap();
    let mut found: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut last = String::new();
    for line in options.lines() {
        let text = line.trim();
        let is_head =
            line.starts_with("  ") && line[..7].contains('-') || line.starts_with("      --");
        if is_head {
            let head = text.split("  ").next().unwrap();
            let long = head.split("--").nth(1).unwrap().split(' ').next().unwrap();
            last = long.to_owned();
            found.insert(last.clone(), (head.replace(['<', '>'], ""), String::new()));
        }
        if let Some(entry) = found.get_mut(&last) {
            entry.1 = format!("{} {text}", entry.1);
        }
    }
    found
}

/// The same of a page: text behind `.TP` is a head, if it is an option.
fn from_page(page: &str) -> BTreeMap<String, (String, String)> {
    let plain =
        page.replace("\\fB", "").replace("\\fI", "").replace("\\fR", "").replace("\\-", "-");
    let mut found = BTreeMap::new();
    for part in plain.split("\n.TP\n").skip(1) {
        let (head, text) = part.split_once('\n').unwrap();
        if head.starts_with('-') {
            let long = head.split("--").nth(1).unwrap().split(' ').next().unwrap();
            let text = text.split("\n.SH").next().unwrap().replace('\n', " ");
            found.insert(long.to_owned(), (head.to_owned(), text));
        }
    }
    found
}

/// What is in square brackets behind `default:`.
fn default(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("[default: ")?;
    let words: Vec<&str> = rest.split(']').next().unwrap().split_whitespace().collect();
    Some(words.join(" "))
}

// [CLI-21]
#[test]
fn manual_pages_are_complete() {
    let pages = [
        ("pasta", include_str!("../../doc/pasta.1")),
        ("passt", include_str!("../../doc/passt.1")),
    ];
    for (program, page) in pages {
        let (help, manual) = (from_help(program), from_page(page));
        let names = |of: &BTreeMap<String, _>| of.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&manual), names(&help), "{program}");
        for (option, (head, text)) in &help {
            let (told, description) = &manual[option];
            assert_eq!(told, head, "{program}");
            // Numbers and addresses, which are easily forgotten when they change.
            let wanted = default(text).filter(|d| d.contains(|c: char| c.is_ascii_digit()));
            if let Some(wanted) = wanted.filter(|d| !d.contains(' ')) {
                assert!(description.contains(&format!("Default: {wanted}.")), "{option}: {wanted}");
            }
        }
        assert!(page.lines().all(|line| line.len() <= 120), "{program}");
    }
}
