//! A transport costs a plain client next to nothing.

use super::*;

#[test]
fn a_plain_socket_is_kept_in_place_for_one_word_more_than_a_tcp_stream() {
    assert_eq!(
        size_of::<Transport>(),
        size_of::<TcpStream>() + size_of::<usize>()
    );
}
