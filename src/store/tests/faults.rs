//! A disk that fails beneath the real engine: it fills up, breaks, tears a write, forgets what was not
//! synced, or lies about that.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard};

use super::*;
use crate::store::committing::Turn;
use crate::store::disk::Disk;
use crate::store::medium::Medium;

/// What the next calls meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Weather {
    #[default]
    Fair,
    /// No byte more than there are.
    Full,
    /// EIO on everything that writes.
    Broken,
    /// This many writes are taken; of the next one half is, and then nothing works.
    Dies(u32),
    /// A sync says yes and does nothing.
    Lies,
}

#[derive(Debug, Default)]
struct Plate {
    /// What is safe.
    safe: Vec<u8>,
    /// What stands, as who reads sees it.
    seen: Vec<u8>,
    /// Writes since the last sync, in order.
    unsafe_writes: Vec<(usize, Vec<u8>)>,
    weather: Weather,
}

/// The disk; cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultyDisk(Arc<Mutex<Plate>>);

fn failed(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

impl FaultyDisk {
    fn lock(&self) -> MutexGuard<'_, Plate> {
        self.0.lock().expect("no test panics in here")
    }

    pub(super) fn weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// The power goes, and comes back: of what was not synced each write is there or not, as `survives` says.
    pub(super) fn after_power_cut(&self, mut survives: impl FnMut(usize) -> bool) -> Self {
        let plate = self.lock();
        let mut safe = plate.safe.clone();
        for (number, (at, bytes)) in plate.unsafe_writes.iter().enumerate() {
            if survives(number) {
                let (at, end) = (*at, at + bytes.len());
                if safe.len() < end {
                    safe.resize(end, 0);
                }
                safe[at..end].copy_from_slice(bytes);
            }
        }
        // A file keeps its length, or has the one it was given.
        let len = safe.len().max(plate.seen.len());
        safe.resize(len, 0);
        Self(Arc::new(Mutex::new(Plate {
            seen: safe.clone(),
            safe,
            ..Plate::default()
        })))
    }

    /// The process goes, and the machine stays.
    pub(super) fn after_kill(&self) -> Self {
        let seen = self.lock().seen.clone();
        Self(Arc::new(Mutex::new(Plate {
            safe: seen.clone(),
            seen,
            ..Plate::default()
        })))
    }

    pub(super) fn store(&self, pace: Pace) -> Result<Arc<Store>, OpenError> {
        let dir = std::path::PathBuf::from("faulty");
        let engine = Disk::open(Arc::new(self.clone()), true);
        let engine = engine.map_err(|error| OpenError::Damaged(dir.clone(), error.to_string()))?;
        let config = StoreConfig {
            dir,
            node: "a@localhost".parse().expect("a name"),
            pace,
        };
        let header = opening::begin_life(&engine, &config)?;
        Ok(Store::over(
            Box::new(engine),
            &header,
            pace,
            "faulty".into(),
            None,
        ))
    }
}

impl Medium for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let plate = self.lock();
        let from = offset as usize;
        let bytes = plate.seen.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut plate = self.lock();
        match plate.weather {
            Weather::Full if len as usize > plate.seen.len() => return Err(failed(ENOSPC)),
            Weather::Broken | Weather::Dies(0) => return Err(failed(EIO)),
            _ => {}
        }
        plate.seen.resize(len as usize, 0);
        if plate.safe.len() > len as usize {
            plate.safe.truncate(len as usize);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut plate = self.lock();
        match plate.weather {
            Weather::Broken | Weather::Dies(0) => return Err(failed(EIO)),
            Weather::Lies => return Ok(()),
            _ => {}
        }
        plate.unsafe_writes.clear();
        plate.safe = plate.seen.clone();
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut plate = self.lock();
        let from = offset as usize;
        let mut taken = bytes.len();
        match &mut plate.weather {
            Weather::Broken | Weather::Dies(0) => return Err(failed(EIO)),
            Weather::Dies(left) => {
                *left -= 1;
                if *left == 0 {
                    taken /= 2;
                }
            }
            _ => {}
        }
        let end = from + taken;
        if end > plate.seen.len() {
            if plate.weather == Weather::Full {
                return Err(failed(ENOSPC));
            }
            plate.seen.resize(end, 0);
        }
        plate.seen[from..end].copy_from_slice(&bytes[..taken]);
        plate.unsafe_writes.push((from, bytes[..taken].to_vec()));
        if taken == bytes.len() {
            Ok(())
        } else {
            Err(failed(EIO))
        }
    }
}

fn payloads(store: &Arc<Store>, no: SessionNo) -> BTreeMap<u64, String> {
    page(store, no).into_iter().collect()
}

fn big(place: u64) -> Queued {
    queued(&format!("{place}:{}", "x".repeat(50_000)))
}

#[test]
fn a_full_disk_keeps_back_what_comes_and_takes_it_when_there_is_room() {
    let disk = FaultyDisk::default();
    let store = disk.store(Pace::default()).expect("it opens");
    let heard = Arc::new(AtomicU64::new(0));
    let hears = heard.clone();
    store.listen(Arc::new(move || {
        hears.fetch_add(1, Relaxed);
    }));
    let no = store.number();
    store.note(Change::Session(no, record("c")));
    store.note(Change::Queued(no, seq(1), queued("1")));
    assert_eq!(store.commit(), Turn::Done);
    disk.weather(Weather::Full);
    let mut last = 2;
    while store.condition() == Condition::Sound {
        store.note(Change::Queued(no, seq(last), big(last)));
        store.commit();
        last += 1;
    }
    let mark = store.mark();
    let said = heard.load(Relaxed);
    store.note(Change::Settled(no, seq(1)));
    assert_eq!(store.commit(), Turn::Failed);
    assert!(store.committed() < mark);
    assert!(heard.load(Relaxed) > said, "the listener hears of it");
    assert_eq!(store.figures().failures, 2);
    assert_eq!(
        store.figures().pending,
        last,
        "what could not be written, and what has come behind it"
    );
    assert_eq!(
        payloads(&store, no).len() as u64,
        last - 2,
        "what is kept back is read all the same"
    );
    disk.weather(Weather::Fair);
    assert_eq!(store.commit(), Turn::Done);
    assert_eq!(store.condition(), Condition::Sound);
    assert!(store.committed() >= mark);
    let after = disk
        .after_power_cut(|_| false)
        .store(Pace::default())
        .expect("it opens");
    assert_eq!(payloads(&after, no), payloads(&store, no));
    assert_eq!(payloads(&after, no).len() as u64, last - 2);
}

#[test]
fn a_broken_disk_is_tried_again_until_it_works_though_nothing_is_to_be_written() {
    let disk = FaultyDisk::default();
    let store = disk.store(Pace::default()).expect("it opens");
    let no = store.number();
    disk.weather(Weather::Broken);
    store.note(Change::Queued(no, seq(1), queued("1")));
    assert_eq!(store.commit(), Turn::Failed);
    store.note(Change::Forget(no));
    assert_eq!(store.commit(), Turn::Failed);
    disk.weather(Weather::Fair);
    assert_eq!(store.commit(), Turn::Done);
    assert_eq!(store.condition(), Condition::Sound);
    disk.weather(Weather::Broken);
    store.note(Change::Queued(no, seq(2), queued("2")));
    assert_eq!(store.commit(), Turn::Failed);
    assert_eq!(store.commit(), Turn::Failed);
    disk.weather(Weather::Fair);
    assert_eq!(store.commit(), Turn::Done);
    assert_eq!(page(&store, no), [(2, "2".into())]);
}

#[test]
fn wherever_a_disk_dies_what_was_acknowledged_is_there_and_nothing_is_half_there() {
    // The first deaths are within the making of the file; from some number on the disk outlives the test.
    let mut lived = 0;
    for writes in 1..200 {
        let disk = FaultyDisk::default();
        disk.weather(Weather::Dies(writes));
        let Ok(store) = disk.store(Pace::default()) else {
            continue;
        };
        let no = store.number();
        store.note(Change::Session(no, record("c")));
        let mut acknowledged = 0;
        for place in 1..=20 {
            // Two records of one commit: both or none.
            store.note(Change::Queued(no, seq(2 * place), queued("even")));
            store.note(Change::Queued(no, seq(2 * place + 1), queued("odd")));
            if store.commit() == Turn::Failed {
                break;
            }
            acknowledged = place;
        }
        lived += u32::from(acknowledged == 20);
        for after in [disk.after_power_cut(|_| false), disk.after_kill()] {
            let found = page(&after.store(Pace::default()).expect("it opens"), no);
            assert_eq!(found.len() % 2, 0, "dead after {writes}: {found:?}");
            let found = found.len() as u64 / 2;
            assert!(
                found == acknowledged || found == acknowledged + 1,
                "dead after {writes}: {found}"
            );
        }
    }
    assert!(lived > 0 && lived < 180, "{lived} of 199 outlived the test");
}

#[test]
fn a_disk_that_lies_about_a_sync_costs_what_it_has_lied_about_and_the_rest_is_whole_or_refused() {
    let disk = FaultyDisk::default();
    let store = disk.store(Pace::default()).expect("it opens");
    let no = store.number();
    store.note(Change::Session(no, record("c")));
    store.note(Change::Queued(no, seq(1), queued("1")));
    assert_eq!(store.commit(), Turn::Done);
    disk.weather(Weather::Lies);
    for place in 2..=10 {
        store.note(Change::Queued(no, seq(place), queued(&place.to_string())));
        assert_eq!(store.commit(), Turn::Done);
    }
    let mut opened = 0;
    for keep in 0..40_usize {
        // Any pattern of what has reached the plate in the end.
        let after = disk.after_power_cut(|write| (write * 7 + keep) % 5 < keep / 8);
        match after.store(Pace::default()) {
            Ok(store) => {
                let found = page(&store, no);
                assert!(
                    found.iter().all(|(place, text)| *text == place.to_string()),
                    "{found:?}"
                );
                opened += 1;
            }
            Err(error) => assert!(matches!(error, OpenError::Damaged(..)), "{error}"),
        }
    }
    assert!(
        opened > 0,
        "where nothing of it came through the last safe state stands"
    );
}
