use super::*;

const GOOD: &str = "0123456789abcdef0123456789abcdef";

fn file(mode: u32, text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cookie");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    (dir, path)
}

fn refusal(mode: u32, text: &str) -> String {
    let (_dir, path) = file(mode, text);
    Cookie::load(&path)
        .unwrap_err()
        .to_string()
        .replace(&path.display().to_string(), "FILE")
}

#[test]
fn a_cookie_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    for mode in [0o440, 0o404, 0o420, 0o402, 0o644, 0o401, 0o410] {
        assert_eq!(
            refusal(mode, GOOD),
            format!(
                "cookie file FILE is accessible by others than its owner (mode {mode:04o}): \
                 run `chmod 400 FILE`"
            )
        );
    }
}

#[test]
fn an_empty_cookie_is_refused() {
    let sentence = "cookie FILE is empty: remove it and a new one is made at the next start, \
                    or copy the cluster's";
    assert_eq!(refusal(0o400, ""), sentence);
    assert_eq!(refusal(0o400, "\r\n\n"), sentence);
}

#[test]
fn a_cookie_too_short_to_be_a_secret_is_refused() {
    assert_eq!(
        refusal(0o400, "fifteen-letters\n"),
        "cookie FILE has 15 bytes and is too short to be a secret: use at least 16"
    );
    let (_dir, path) = file(0o600, "sixteen-letters!\n");
    Cookie::load(&path).unwrap();
}

#[test]
fn a_cookie_too_long_to_be_one_is_refused() {
    assert_eq!(
        refusal(0o400, &"x".repeat(COOKIE_BYTES_MAX + 1)),
        "cookie FILE is longer than 4096 bytes and hardly a cookie: check what it holds"
    );
    let (_dir, path) = file(0o400, &format!("{}\r\n", "x".repeat(COOKIE_BYTES_MAX)));
    Cookie::load(&path).unwrap();
}

#[test]
fn a_cookie_with_an_unprintable_character_is_refused() {
    for text in [
        "0123456789abcdef\t0123",
        "0123456789abcdef\n0123",
        "0123456789abcdefé",
        "\u{0}123456789abcdef0",
    ] {
        assert_eq!(
            refusal(0o400, text),
            "cookie FILE holds a character that is not printable ASCII: write it anew as one line of text"
        );
    }
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let sentence = Cookie::load(dir.path()).unwrap_err().to_string();
    assert!(
        sentence.contains("is a directory, not a regular file: remove it"),
        "{sentence}"
    );

    let fifo = dir.path().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let sentence = Cookie::load_or_create(&fifo).unwrap_err().to_string();
    assert!(
        sentence.contains("is a fifo, socket or device, not a regular file: remove it"),
        "{sentence}"
    );
}

#[test]
fn a_link_is_followed_and_its_target_held_to_the_rules() {
    let (dir, path) = file(0o400, GOOD);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(
        Cookie::load(&link).unwrap().fingerprint(),
        Cookie::load(&path).unwrap().fingerprint()
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    assert!(matches!(Cookie::load(&link), Err(CookieError::Exposed { .. })));
}

#[test]
fn a_missing_or_unreadable_cookie_has_its_own_sentence() {
    let (dir, path) = file(0o400, GOOD);
    let missing = Cookie::load(&dir.path().join("none")).unwrap_err().to_string();
    assert!(missing.starts_with("there is no cookie file ") && missing.contains("`ermine start` makes one"));
    let unreadable = Cookie::load(&path.join("below")).unwrap_err().to_string();
    assert!(
        unreadable.contains("cannot be read (Not a directory"),
        "{unreadable}"
    );
    assert!(
        unreadable.ends_with("run this as the user who owns the file"),
        "{unreadable}"
    );
    let nowhere = Cookie::load_or_create(&dir.path().join("no/such/dir"))
        .unwrap_err()
        .to_string();
    assert!(nowhere.contains("cannot be created (No such file"), "{nowhere}");
    assert!(
        nowhere.ends_with("choose another place with --cookie-file"),
        "{nowhere}"
    );
}

#[test]
fn a_made_cookie_has_256_random_bits_and_is_its_owners_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cookie");
    let made = Cookie::load_or_create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o400);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.len(), 65);
    assert!(text.trim_end().chars().all(|c| c.is_ascii_hexdigit()));
    assert_eq!(
        Cookie::load_or_create(&path).unwrap().fingerprint(),
        made.fingerprint()
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the draft is gone");
    assert_ne!(
        Cookie::load_or_create(&dir.path().join("other"))
            .unwrap()
            .fingerprint(),
        made.fingerprint()
    );
}

#[test]
fn nodes_that_start_at_once_make_one_cookie() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cookie");
    let made: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Cookie::load_or_create(&path)))
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap().unwrap().fingerprint())
            .collect()
    });
    assert!(made.windows(2).all(|pair| pair[0] == pair[1]), "{made:?}");
}

#[test]
fn a_trailing_newline_is_no_part_of_the_cookie() {
    let (_dir, path) = file(0o400, &format!("{GOOD}\r\n"));
    assert_eq!(
        Cookie::load(&path).unwrap().fingerprint(),
        Cookie::from_text(GOOD).unwrap().fingerprint()
    );
}

#[test]
fn the_flag_goes_before_the_variable_and_the_variable_before_home() {
    let find = |flag: Option<&str>, variable: Option<&str>, home: Option<&str>| {
        CookieSource::find(
            flag.map(Into::into),
            variable.map(Into::into),
            home.map(Into::into),
        )
    };
    assert_eq!(
        find(Some("/f"), Some(GOOD), Some("/h")).unwrap().to_string(),
        "/f"
    );
    assert_eq!(
        find(None, Some(GOOD), Some("/h")).unwrap().to_string(),
        "ERMINE_COOKIE"
    );
    assert_eq!(
        find(None, None, Some("/h")).unwrap().to_string(),
        "/h/.ermine.cookie"
    );
    assert_eq!(
        find(None, None, None).unwrap_err().to_string(),
        "there is no place for a cookie: set --cookie-file, ERMINE_COOKIE or HOME"
    );
    let short = find(None, Some("short"), None)
        .unwrap()
        .load()
        .unwrap_err()
        .to_string();
    assert_eq!(
        short,
        "cookie in ERMINE_COOKIE has 5 bytes and is too short to be a secret: use at least 16"
    );
}

#[test]
fn no_formatting_shows_the_secret() {
    let cookie = Cookie::from_text(GOOD).unwrap();
    let source = CookieSource::find(None, Some(GOOD.into()), None).unwrap();
    let shown = format!(
        "{cookie:?} {} {:?} {source:?} {source}",
        cookie.fingerprint(),
        cookie.fingerprint()
    );
    assert!(!shown.contains("0123456789"), "{shown}");
    assert_eq!(cookie.fingerprint().to_string().len(), 8);
}

#[test]
fn a_cookie_is_replaced_whole_with_mode_0600_and_left_alone_where_it_is_there_already() {
    let (dir, path) = file(0o400, GOOD);
    let new = Cookie::random().unwrap();
    new.replaceable(&path).unwrap();
    new.replace(&path).unwrap();
    assert!(Cookie::load(&path).unwrap().is_same_as(&new));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    new.replace(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    assert!(!Cookie::random().unwrap().is_same_as(&new));
}

#[test]
fn a_link_to_the_cookie_stays_a_link() {
    let (dir, path) = file(0o600, GOOD);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let new = Cookie::random().unwrap();
    new.replace(&link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(Cookie::load(&path).unwrap().is_same_as(&new));
}

#[test]
fn a_folder_that_takes_no_file_is_found_out_before_and_the_old_cookie_stands() {
    let new = Cookie::random().unwrap();
    // Not even root makes files there.
    let nowhere = Path::new("/proc/self/cookie");
    for refused in [new.replaceable(nowhere), new.replace(nowhere)] {
        let sentence = refused.unwrap_err().to_string();
        assert!(
            sentence.starts_with("cookie file /proc/self/cookie cannot be rewritten ("),
            "{sentence}"
        );
    }
}
