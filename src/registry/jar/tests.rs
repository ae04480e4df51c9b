use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn cookie(letter: char) -> Cookie {
    Cookie::from_text(&letter.to_string().repeat(20)).unwrap()
}

fn change(edition: u64, letter: char) -> Change {
    Change {
        edition: Edition(edition),
        cookie: cookie(letter),
        grace: HOUR,
        shared: true,
    }
}

/// The letters of what is taken and of what was taken once.
fn taken(jar: &CookieJar, now: Instant) -> (String, String) {
    let letters = |cookies: Vec<Cookie>| -> String {
        let letter = |cookie: &Cookie| char::from(cookie.expose()[0]);
        cookies.iter().map(letter).collect()
    };
    let Accepted { valid, retired } = jar.accepted(now);
    (letters(valid), letters(retired))
}

fn both(valid: &str, retired: &str) -> (String, String) {
    (valid.into(), retired.into())
}

#[test]
fn a_new_cookie_is_taken_once_it_is_prepared_and_proved_first_once_it_is_committed() {
    let (jar, now) = (CookieJar::from(cookie('a')), Instant::now());
    assert_eq!(taken(&jar, now), both("a", ""));
    jar.prepare(change(5, 'b'), now).unwrap();
    assert_eq!(
        taken(&jar, now),
        both("ab", ""),
        "the old one is still proved first"
    );
    let switched = jar.commit(Edition(5), now).unwrap();
    assert_eq!(switched.before, cookie('a').fingerprint());
    assert!(switched.cookie.is_same_as(&cookie('b')) && jar.current().is_same_as(&cookie('b')));
    assert_eq!(taken(&jar, now), both("ba", ""));
    assert_eq!(jar.edition(), Edition(5));
    assert!(jar.commit(Edition(5), now).is_none(), "once");
}

#[test]
fn the_old_cookie_is_taken_until_its_grace_is_over_and_recognised_after_it() {
    let (jar, now) = (CookieJar::from(cookie('a')), Instant::now());
    jar.prepare(change(1, 'b'), now).unwrap();
    jar.commit(Edition(1), now).unwrap();
    let last = now + HOUR - Duration::from_nanos(1);
    assert_eq!(taken(&jar, last), both("ba", ""));
    assert_eq!(taken(&jar, now + HOUR), both("b", "a"));
    assert_eq!(jar.standing(cookie('a').fingerprint()), Standing::Previous);
    assert_eq!(jar.standing(cookie('b').fingerprint()), Standing::Current);
    assert_eq!(jar.standing(cookie('x').fingerprint()), Standing::Unknown);
}

#[test]
fn without_grace_the_old_cookie_is_refused_at_once() {
    let (jar, now) = (CookieJar::from(cookie('a')), Instant::now());
    let change = Change {
        grace: Duration::ZERO,
        ..change(1, 'b')
    };
    jar.prepare(change, now).unwrap();
    jar.commit(Edition(1), now).unwrap();
    assert_eq!(taken(&jar, now), both("b", "a"));
}

#[test]
fn a_shorter_grace_holds_for_earlier_cookies_too() {
    let (jar, now) = (CookieJar::from(cookie('a')), Instant::now());
    jar.prepare(change(1, 'b'), now).unwrap();
    jar.commit(Edition(1), now).unwrap();
    let grace = Duration::ZERO;
    jar.prepare(
        Change {
            grace,
            ..change(2, 'c')
        },
        now,
    )
    .unwrap();
    jar.commit(Edition(2), now).unwrap();
    assert_eq!(taken(&jar, now), both("c", "ba"));
}

#[test]
fn what_was_aborted_or_never_committed_is_forgotten() {
    let (jar, now) = (CookieJar::from(cookie('a')), Instant::now());
    jar.prepare(change(1, 'b'), now).unwrap();
    jar.abort(Edition(9));
    assert_eq!(jar.prepared(), Some(Edition(1)));
    jar.abort(Edition(1));
    assert_eq!(taken(&jar, now), both("a", ""));
    assert!(jar.commit(Edition(1), now).is_none());
    jar.prepare(change(2, 'c'), now).unwrap();
    assert_eq!(jar.standing(cookie('c').fingerprint()), Standing::Prepared);
    assert_eq!(taken(&jar, now + COOKIE_PREPARED_FOR.1), both("a", ""));
}

#[test]
fn an_earlier_edition_the_same_cookie_and_a_second_rotation_are_not_prepared() {
    let (jar, now) = (CookieJar::from(cookie('a')), Instant::now());
    assert_eq!(jar.prepare(change(1, 'a'), now), Err(NotPrepared::Same));
    jar.prepare(change(5, 'b'), now).unwrap();
    assert_eq!(jar.prepare(change(6, 'c'), now), Err(NotPrepared::Busy));
    jar.prepare(change(5, 'b'), now).unwrap(); // said again
    // Whoever coordinated it is gone.
    jar.prepare(change(6, 'c'), now + COOKIE_PREPARED_FOR.0).unwrap();
    assert!(jar.commit(Edition(5), now).is_none());
    jar.commit(Edition(6), now).unwrap();
    assert_eq!(jar.prepare(change(6, 'd'), now), Err(NotPrepared::Outdated));
}

#[test]
fn earlier_cookies_are_bounded_and_each_has_its_own_grace() {
    let (jar, now) = (CookieJar::from(cookie('a')), Instant::now());
    for (edition, letter) in (1..).zip('b'..='g') {
        jar.prepare(change(edition, letter), now + HOUR / 4 * edition as u32)
            .unwrap();
        jar.commit(Edition(edition), now + HOUR / 4 * edition as u32)
            .unwrap();
    }
    // Changed at 15, 30, … 90 minutes; 'f' is good until 150.
    assert_eq!(
        taken(&jar, now + HOUR * 2),
        both("gfe", "dc"),
        "at most four earlier ones"
    );
    assert_eq!(jar.standing(cookie('a').fingerprint()), Standing::Unknown);
}

#[test]
fn who_goes_back_to_an_earlier_cookie_holds_it_once() {
    let (jar, now) = (CookieJar::from(cookie('a')), Instant::now());
    jar.prepare(change(1, 'b'), now).unwrap();
    jar.commit(Edition(1), now).unwrap();
    jar.prepare(change(2, 'a'), now).unwrap();
    jar.commit(Edition(2), now).unwrap();
    assert_eq!(taken(&jar, now), both("ab", ""));
    assert_eq!(jar.standing(cookie('a').fingerprint()), Standing::Current);
}

#[test]
fn who_was_away_is_given_the_new_cookie_with_what_is_left_of_the_grace() {
    let (jar, now) = (CookieJar::from(cookie('a')), Instant::now());
    assert!(jar.to_be_shared(now).is_none(), "nothing was rotated");
    jar.prepare(change(1, 'b'), now).unwrap();
    assert!(jar.to_be_shared(now).is_none(), "nothing is committed");
    jar.commit(Edition(1), now).unwrap();
    let shared = jar.to_be_shared(now + HOUR / 4).unwrap();
    assert_eq!((shared.edition, shared.grace), (Edition(1), HOUR / 4 * 3));
    assert!(shared.cookie.is_same_as(&cookie('b')));
    assert_eq!(jar.to_be_shared(now + HOUR * 2).unwrap().grace, Duration::ZERO);
    assert!(jar.in_common(cookie('a').fingerprint()).is_same_as(&cookie('a')));
    assert!(jar.in_common(cookie('x').fingerprint()).is_same_as(&cookie('b')));
    let alone = Change {
        shared: false,
        ..change(2, 'c')
    };
    jar.prepare(alone, now).unwrap();
    jar.commit(Edition(2), now).unwrap();
    assert!(jar.to_be_shared(now).is_none(), "changed on this node only");
}

#[test]
fn a_jar_shows_no_cookie() {
    let jar = CookieJar::from(cookie('a'));
    assert_eq!(
        format!("{jar:?}"),
        format!("CookieJar({})", cookie('a').fingerprint())
    );
    assert!(!format!("{:?}", change(1, 'b')).contains("bb"));
}
