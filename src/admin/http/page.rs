//! The observer page: three files in the binary, which load nothing from anywhere else.

use super::answer::{Answer, found};

const HTML: &str = include_str!("page/observer.html");
const STYLE: &str = include_str!("page/observer.css");
const SCRIPTS: [(&str, &str); 4] = [
    ("/observer.js", include_str!("page/observer.js")),
    ("/tree.js", include_str!("page/tree.js")),
    ("/charts.js", include_str!("page/charts.js")),
    ("/lists.js", include_str!("page/lists.js")),
];

/// The file at a path, if it is one of the page's.
pub(super) fn file(path: &str) -> Option<Answer> {
    match path {
        "/" => Some(found("text/html; charset=utf-8", HTML)),
        "/observer.css" => Some(found("text/css; charset=utf-8", STYLE)),
        _ => {
            let (_, script) = SCRIPTS.iter().find(|(name, _)| *name == path)?;
            Some(found("text/javascript; charset=utf-8", *script))
        }
    }
}
