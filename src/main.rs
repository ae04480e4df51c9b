//! The `ermine` binary: parse, run, exit code.

fn main() -> std::process::ExitCode {
    ermine::cli::main()
}
