//! Checks that what links of the documents lead to exists, and that docs/ is a whole book.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Markdown files directly in a folder of the project.
fn documents(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let mut found: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    found.sort();
    found
}

/// The lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence && !line.starts_with("    ")
    })
}

/// The anchors that GitHub and mdBook give to the headings of a page.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings.map(|heading| heading.to_lowercase().chars().filter_map(anchor_char).collect()).collect()
}

fn anchor_char(char: char) -> Option<char> {
    match char {
        ' ' => Some('-'),
        char if char.is_alphanumeric() || char == '-' || char == '_' => Some(char),
        _ => None,
    }
}

/// The targets of the links of a text: the part in round brackets. Code spans hold none.
fn links(text: &str) -> Vec<String> {
    let prose: String = prose(text).collect::<Vec<_>>().join("\n");
    let plain: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("code");
    plain.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// What is wrong with a link on a page, if anything is.
fn fault(page: &Path, link: &str) -> Option<String> {
    if link.starts_with("https://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
    if !target.exists() {
        return Some(format!("{}: {link}: there is no such file", page.display()));
    }
    let missing = anchor.is_some_and(|anchor| !anchors(&read(&target)).contains(anchor));
    missing.then(|| format!("{}: {link}: there is no such heading", page.display()))
}

#[test]
fn each_link_leads_to_a_file_and_a_heading_that_exist() {
    let pages: Vec<_> = ["", "docs", "tests", "fixtures", "fixtures/odd"].iter().flat_map(|folder| documents(folder)).collect();
    let links: Vec<_> = pages.iter().flat_map(|page| links(&read(page)).into_iter().map(move |link| (page, link))).collect();
    assert!(links.len() > 50, "{}", links.len());
    let faults: Vec<_> = links.iter().filter_map(|(page, link)| fault(page, link)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_link_that_leads_nowhere_is_noticed() {
    let page = root().join("docs/RESULTS.md");
    assert_eq!(fault(&page, "SYNC.md#missing-accounts"), None);
    assert!(fault(&page, "NOWHERE.md").unwrap().ends_with("no such file"));
    assert!(fault(&page, "SYNC.md#nothing").unwrap().ends_with("no such heading"));
    assert_eq!(links("[a](b.md) `[c](d)` [`e`](f.md#g)\n```\n[h](i)\n```\n"), ["b.md", "f.md#g"]);
    assert_eq!(anchors("# Who's there, `now`?\n"), BTreeSet::from(["whos-there-now".to_owned()]));
}

/// A page that the summary leaves out would not be in the book.
#[test]
fn each_page_of_the_book_is_in_its_summary_once() {
    let mut listed = links(&read(&root().join("docs/SUMMARY.md")));
    listed.sort();
    let pages = documents("docs").into_iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    let pages: Vec<_> = pages.filter(|name| name != "SUMMARY.md").collect();
    assert_eq!(listed, pages);
}

/// In the book, a link that leaves docs/ would lead nowhere.
#[test]
fn no_link_leaves_the_book() {
    let outside = documents("docs").into_iter().flat_map(|page| links(&read(&page))).filter(|link| link.starts_with(".."));
    assert_eq!(outside.collect::<Vec<_>>(), Vec::<String>::new());
}
