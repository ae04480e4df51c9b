//! Catching a panic together with its place.
//!
//! A panic's payload has no location, only the hook sees it. Our hook is installed once, keeps quiet for
//! panics inside a process (its crash report says everything) and hands all others to the hook that was there
//! before.

use crate::backtrace::Trace;
use crate::exit::PanicReport;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

struct Place {
    location: String,
    backtrace: Option<Trace>,
}

thread_local! {
    static INSIDE: Cell<u32> = const { Cell::new(0) };
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

// With `panic = "abort"` nothing would be supervised: the first crash would end everything.
const _: () = assert!(
    cfg!(panic = "unwind"),
    "supervision needs panic = \"unwind\" in the build profile"
);

/// Installs the hook, once.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if INSIDE.get() == 0 {
                return previous(info);
            }
            let location = info
                .location()
                .map(ToString::to_string)
                .unwrap_or_else(|| "unknown place".into());
            // Captured only: to resolve it here would hold up everybody on this arbiter.
            let backtrace = Trace::capture();
            PLACE.with(|place| *place.borrow_mut() = Some(Place { location, backtrace }));
        }));
    });
}

/// Runs `work`; a panic in it comes back as a value.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, PanicReport> {
    INSIDE.set(INSIDE.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(INSIDE.get() - 1);
    result.map_err(report)
}

fn report(payload: Box<dyn Any + Send>) -> PanicReport {
    let message: Arc<str> = if let Some(text) = payload.downcast_ref::<&str>() {
        Arc::from(*text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        Arc::from(text.as_str())
    } else {
        Arc::from("opaque panic payload")
    };
    let place = PLACE.with(|place| place.borrow_mut().take());
    // A payload may panic when it is dropped, and then again: after the second time it is left alone.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    let (location, backtrace) = match place {
        Some(place) => (Arc::from(place.location), place.backtrace),
        None => (Arc::from("unknown place"), None),
    };
    PanicReport {
        message,
        location,
        backtrace,
    }
}
