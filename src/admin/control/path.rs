//! Which process an operator means.

/// Processes that are listed when a part of a path names several.
const LISTED_MAX: usize = 5;

/// The path that `wanted` names: a whole path, or the end of exactly one.
pub(super) fn find<'a>(wanted: &str, paths: impl Iterator<Item = &'a str>) -> Result<&'a str, String> {
    let wanted = wanted.trim_matches('/');
    let mut found = Vec::new();
    for path in paths {
        if path == wanted {
            return Ok(path);
        }
        let rest = path.strip_suffix(wanted);
        if !wanted.is_empty() && rest.is_some_and(|rest| rest.ends_with('/')) {
            found.push(path);
        }
    }
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(format!(
            "not_found: there is no process {}: see `ermine tree`",
            wanted.escape_debug()
        )),
        several => {
            let more = if several.len() > LISTED_MAX { ", …" } else { "" };
            let first = several[..several.len().min(LISTED_MAX)].join(", ");
            Err(format!(
                "{} names several processes: {first}{more}",
                wanted.escape_debug()
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 5] = ["root", "root/core", "root/core/router", "root/a/x", "root/b/x"];

    fn found(wanted: &str) -> Result<&'static str, String> {
        find(wanted, PATHS.into_iter())
    }

    #[test]
    fn a_whole_path_or_the_end_of_one_names_a_process() {
        assert_eq!(found("root/core/router"), Ok("root/core/router"));
        assert_eq!(found("/root/core/router/"), Ok("root/core/router"));
        assert_eq!(found("core/router"), Ok("root/core/router"));
        assert_eq!(found("router"), Ok("root/core/router"));
        assert_eq!(found("root"), Ok("root"));
    }

    #[test]
    fn what_names_none_or_several_is_refused() {
        assert_eq!(
            found("outer").unwrap_err(),
            "not_found: there is no process outer: see `ermine tree`"
        );
        assert_eq!(
            found("").unwrap_err(),
            "not_found: there is no process : see `ermine tree`"
        );
        assert_eq!(
            found("x").unwrap_err(),
            "x names several processes: root/a/x, root/b/x"
        );
    }
}
