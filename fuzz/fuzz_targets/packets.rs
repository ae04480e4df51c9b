#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ermine_fuzz::packets::run(data));
