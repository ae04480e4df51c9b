//! A transport costs a plain client nothing.

use super::*;

#[test]
fn a_plain_socket_is_kept_in_place_and_costs_no_byte_more_than_a_tcp_stream() {
    assert_eq!(size_of::<Transport>(), size_of::<TcpStream>());
}
