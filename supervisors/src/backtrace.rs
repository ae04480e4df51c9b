//! Where a panic came from: captured where it happens, resolved where there is time.
//!
//! To capture is to walk the stack: some µs. To resolve is to read the program's debug information: half a
//! second the first time in a debug build, during which an arbiter would serve nobody. So the frames stay
//! addresses until somebody reads them; of reports that is the reporter's thread.

use serde::{Serialize, Serializer};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

/// The frames of a panic. Clones share them; two are equal if they are of the same panic.
#[derive(Clone)]
pub struct Trace(Arc<Frames>);

struct Frames {
    captured: Backtrace,
    text: OnceLock<String>,
}

impl Trace {
    /// The stack of this thread, if `RUST_BACKTRACE` (or `RUST_LIB_BACKTRACE`) asks for it.
    pub(crate) fn capture() -> Option<Trace> {
        let captured = Backtrace::capture();
        let text = OnceLock::new();
        (captured.status() == BacktraceStatus::Captured).then(|| Trace(Arc::new(Frames { captured, text })))
    }

    /// The frames as text: what panicked first, without those of std, actix, tokio and supervisors, unless
    /// `RUST_BACKTRACE` is `full`. The first call may take half a second.
    pub fn text(&self) -> &str {
        self.0.text.get_or_init(|| {
            let whole = self.0.captured.to_string();
            match std::env::var("RUST_BACKTRACE").as_deref() {
                Ok("full") => whole,
                _ => trimmed(&whole),
            }
        })
    }
}

impl PartialEq for Trace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Trace {}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace(..)")
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Serialize for Trace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

/// Crates whose frames say how a process came to be polled, not what it did.
const MACHINERY: [&str; 12] = [
    "std",
    "core",
    "alloc",
    "supervisors",
    "actix",
    "actix_rt",
    "tokio",
    "futures_core",
    "futures_util",
    "__rustc",
    "rust_begin_unwind",
    "__rust_try",
];

/// A backtrace as std prints it, without the frames of [`MACHINERY`], numbered anew.
fn trimmed(whole: &str) -> String {
    let (mut text, mut kept, mut left_out) = (String::new(), 0, 0);
    let mut lines = whole.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((_, symbol)) = numbered(line) else {
            continue;
        };
        let at = lines.next_if(|line| numbered(line).is_none()).map(str::trim);
        if is_machinery(symbol, at.unwrap_or_default()) {
            left_out += 1;
            continue;
        }
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{kept:>4}: {symbol}");
        if let Some(at) = at {
            let _ = writeln!(text, "             {at}");
        }
        kept += 1;
    }
    let _ = write!(
        text,
        "      {left_out} frames of std, actix, tokio and supervisors are left out; \
         RUST_BACKTRACE=full has them"
    );
    text
}

/// `  12: symbol`
fn numbered(line: &str) -> Option<(u32, &str)> {
    let (number, symbol) = line.trim_start().split_once(": ")?;
    Some((number.parse().ok()?, symbol))
}

fn is_machinery(symbol: &str, at: &str) -> bool {
    // `<supervisors::context::Letter<M> as actix::…>::handle`, `&mut dyn …`, `_ZN…` without demangling.
    let bare = symbol.trim_start_matches(['<', '&', '*', '(']);
    let bare = bare.trim_start_matches("mut ").trim_start_matches("dyn ");
    let end = bare
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(bare.len());
    // A name alone may be anybody's: `actix` is a crate only with `::` behind it.
    let crate_like = bare[end..].starts_with("::") || bare.starts_with("__rust") || bare.starts_with("rust_");
    if crate_like && MACHINERY.contains(&&bare[..end]) {
        return true;
    }
    // With debug information names may come without their crate, but with their file.
    let Some(file) = at.strip_prefix("at ") else {
        return false;
    };
    let registry = file
        .split_once("/registry/src/")
        .and_then(|(_, rest)| rest.split_once('/'));
    let package = registry.map(|(_, package)| package.to_owned());
    file.contains("/rustc/")
        || file.contains("/library/std/")
        || file.contains("/nptl/")
        || file.contains("/sysdeps/")
        || file.contains("supervisors/src/")
        || package.is_some_and(|package| {
            ["actix", "tokio-", "futures-", "supervisors-"]
                .iter()
                .any(|name| package.starts_with(name))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut from a debug build.
    const WHOLE: &str = "   0: std::backtrace::Backtrace::create
             at /rustc/5980/library/std/src/backtrace.rs:331:13
   1: supervisors::panic::install_hook::{{closure}}::{{closure}}
             at ./supervisors/src/panic.rs:49:29
   2: __rustc::rust_begin_unwind
             at /rustc/5980/library/std/src/panicking.rs:689:5
   3: core::result::unwrap_failed
   4: till
             at ./examples/shop.rs:12:9
   5: <shop::Till as actix::handler::Handler<shop::Pay>>::handle
             at ./examples/shop.rs:30:14
   6: <supervisors::context::Letter<M> as actix::address::envelope::EnvelopeProxy<A>>::handle
             at ./supervisors/src/context.rs:250:15
   7: do_call<core::panic::unwind_safe::AssertUnwindSafe<F>, ()>
             at /rustc/5980/library/std/src/panicking.rs:581:40
   8: poll
             at /home/kim/.cargo/registry/src/index.crates.io-1949/actix-0.13.5/src/context_impl.rs:10:1
   9: shop::main
             at ./examples/shop.rs:50:5
  10: main
";

    #[test]
    fn the_first_frame_left_is_the_culprit() {
        let wanted = "   0: till
             at ./examples/shop.rs:12:9
   1: <shop::Till as actix::handler::Handler<shop::Pay>>::handle
             at ./examples/shop.rs:30:14
   2: shop::main
             at ./examples/shop.rs:50:5
   3: main
      7 frames of std, actix, tokio and supervisors are left out; RUST_BACKTRACE=full has them";
        assert_eq!(trimmed(WHOLE), wanted);
    }

    #[test]
    fn a_crate_that_is_only_called_alike_is_no_machinery() {
        for symbol in [
            "stdlib::f",
            "actixish::g",
            "core",
            "<tokio_like::T as core::ops::Drop>::drop",
        ] {
            assert!(!is_machinery(symbol, ""), "{symbol}");
        }
        for symbol in [
            "<&mut dyn core::ops::Fn()>::call",
            "actix_rt::spawn",
            "rust_begin_unwind",
            "__rust_try",
        ] {
            assert!(is_machinery(symbol, ""), "{symbol}");
        }
    }
}
