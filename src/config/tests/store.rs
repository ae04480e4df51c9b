use std::time::Duration;

use super::{of_file, refused};
use crate::store::{Pace, Sync};

#[test]
fn the_store_syncs_as_it_is_told() {
    assert_eq!(of_file("").unwrap().store, Pace::default());
    let store = of_file("[store]\nsync = 'interval'\ninterval_ms = 250\ngroup_ms = 0")
        .unwrap()
        .store;
    let told = Pace {
        sync: Sync::Interval,
        group: Duration::ZERO,
        interval: Duration::from_millis(250),
    };
    assert_eq!(store, told);
    assert_eq!(of_file("[store]\nsync = 'off'").unwrap().store.sync, Sync::Off);
}

#[test]
fn what_is_wrong_with_the_store_is_said_at_its_line() {
    assert_eq!(
        refused("[store]\nsync = 'always'"),
        "e.toml:2: sync must be one of group, interval, off, not 'always'"
    );
    assert_eq!(
        refused("[store]\ninterval_ms = 100"),
        "e.toml:2: interval_ms has no effect without sync = \"interval\""
    );
    assert_eq!(
        refused("[store]\ngroup_ms = 101"),
        "e.toml:2: group_ms must be a number from 0 to 100, not 101"
    );
    assert_eq!(
        refused("[store]\nsinc = 'off'"),
        "e.toml:2: unknown key 'sinc' in [store]; did you mean 'sync'?"
    );
}
