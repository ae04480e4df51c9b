//! The observer page: whole, typed, and from nowhere else.

use crate::http::Observed;

#[test]
fn the_page_and_what_it_needs_come_from_the_node_alone() {
    let observed = Observed::start();
    let page = observed.open("/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(page.body.contains("/observer.js") && page.body.contains("/observer.css"));
    let files = [
        ("/observer.css", "text/css; charset=utf-8"),
        ("/observer.js", "text/javascript; charset=utf-8"),
        ("/tree.js", "text/javascript; charset=utf-8"),
        ("/charts.js", "text/javascript; charset=utf-8"),
        ("/lists.js", "text/javascript; charset=utf-8"),
    ];
    for (path, kind) in files {
        let file = observed.open(path);
        assert_eq!(
            (file.status, file.header("content-type")),
            (200, Some(kind)),
            "{path}"
        );
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        no_other_place(&file.body);
        for markup in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(
                !file.body.contains(markup),
                "{path} writes markup: strangers name clients"
            );
        }
    }
    no_other_place(&page.body);
}

/// No address but the names of XML's dialects, which nobody fetches.
fn no_other_place(text: &str) {
    let text = text.replace("http://www.w3.org/2000/svg", "");
    for scheme in ["http://", "https://", "//cdn", "@import", "url("] {
        assert!(!text.contains(scheme), "{scheme} in {text}");
    }
}
