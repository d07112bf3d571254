//! Links between our pages lead somewhere: the file is there, and so is the heading.

use super::Source;

/// Every link of a Markdown file to a file or heading that does not exist.
pub fn check(sources: &[Source]) -> Vec<String> {
    let pages = sources.iter().filter(|source| source.path.ends_with(".md"));
    pages.flat_map(|page| check_page(page, sources)).collect()
}

fn check_page(page: &Source, sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for link in links(&page.text) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let path = if file.is_empty() {
            page.path.clone()
        } else {
            resolve(&page.path, file)
        };
        match sources.iter().find(|source| source.path == path) {
            None => broken.push(format!(
                "{}: links to {path}, which is not there",
                page.path
            )),
            Some(target) if !heading.is_empty() && !has_heading(&target.text, heading) => {
                broken.push(format!("{}: {path} has no heading #{heading}", page.path));
            }
            Some(_) => {}
        }
    }
    broken
}

/// The targets of `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// `file` as seen from the folder of `page`.
fn resolve(page: &str, file: &str) -> String {
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Headings are linked to as GitHub does: lower case, spaces as hyphens, other signs left out.
fn has_heading(text: &str, wanted: &str) -> bool {
    let anchor = |line: &str| -> String {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    text.lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| anchor(line) == wanted)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_broken, source};
    use super::*;

    fn check_text(text: &str, expected: &[&str]) {
        let sources = [
            source("docs/page.md", text),
            source("docs/other.md", "# The `big` heading, here\n"),
            source("LICENSE", ""),
        ];
        check_broken(&check(&sources), expected);
    }

    #[test]
    fn links_lead_somewhere() {
        check_text(
            "[a](other.md) [b](../LICENSE) [c](https://example.com/x#y)",
            &[],
        );
        check_text("[a](other.md#the-big-heading-here)", &[]);
        check_text("## Here\n[a](#here)", &[]);
        check_text("[a](missing.md)", &["docs/missing.md"]);
        check_text("[a](other.md#small)", &["#small"]);
        check_text("[a](#there)", &["#there"]);
    }
}
