//! One client of the load: a socket, pre-encoded packets, and the least of MQTT 3.1.1 that is needed to
//! answer a broker. Own code, so that neither the product's codec nor a library is measured along.

use std::cell::RefCell;
use std::io;
use std::sync::OnceLock;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::tally::Tally;

/// Bytes of every payload unless said otherwise: publisher (4), sequence number (8), padding.
pub(crate) const PAYLOAD_LEN: usize = 64;

/// What was said otherwise.
pub(crate) static PAYLOAD_LEN_SET: OnceLock<usize> = OnceLock::new();

fn payload_len() -> usize {
    *PAYLOAD_LEN_SET.get().unwrap_or(&PAYLOAD_LEN)
}

/// A Remaining Length.
fn length(out: &mut Vec<u8>, mut len: usize) {
    while len > 127 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

/// Bytes that one read takes.
const READ_LEN: usize = 64 << 10;

thread_local! {
    /// What is read comes here first: thousands of idle clients need no buffers of their own.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connected client.
pub(crate) struct Wire {
    socket: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// A PUBLISH whose sequence number and packet identifier are patched in place.
pub(crate) struct Template {
    packet: Vec<u8>,
    qos: u8,
    id_at: usize,
    /// Sequence number of the next one.
    pub(crate) next: u64,
}

impl Template {
    /// Messages of one publisher to one topic.
    pub(crate) fn new(publisher: u32, topic: &str, qos: u8) -> Self {
        let id_len = if qos == 0 { 0 } else { 2 };
        let remaining = 2 + topic.len() + id_len + payload_len();
        let mut packet = vec![0x30 | qos << 1];
        length(&mut packet, remaining);
        let header_len = packet.len();
        packet.extend((topic.len() as u16).to_be_bytes());
        packet.extend(topic.as_bytes());
        let id_at = packet.len();
        packet.resize(id_at + id_len, 0);
        packet.extend(publisher.to_be_bytes());
        packet.resize(remaining + header_len, b'.');
        Self {
            packet,
            qos,
            id_at,
            next: 0,
        }
    }

    fn append(&mut self, out: &mut Vec<u8>) {
        let mut seq_at = self.id_at + 4;
        if self.qos > 0 {
            let id = (self.next % 65_535) as u16 + 1;
            self.packet[self.id_at..self.id_at + 2].copy_from_slice(&id.to_be_bytes());
            seq_at += 2;
        }
        self.packet[seq_at..seq_at + 8].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        out.extend(&self.packet);
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

impl Wire {
    /// Connects and waits for the CONNACK. A session that is not clean stays when its connection ends.
    pub(crate) async fn connect(at: &str, client_id: &str, clean: bool) -> io::Result<Self> {
        let socket = TcpStream::connect(at).await?;
        socket.set_nodelay(true)?;
        let mut wire = Self {
            socket,
            input: Vec::new(),
            output: Vec::new(),
        };
        let mut body = Vec::new();
        string(&mut body, "MQTT");
        body.extend([4, u8::from(clean) << 1, 0, 0]);
        string(&mut body, client_id);
        wire.output.extend([0x10, body.len() as u8]);
        wire.output.append(&mut body);
        wire.flush().await?;
        match wire.answer().await?[..] {
            [0x20, 2, _, 0] => Ok(wire),
            _ => Err(io::Error::other("the CONNECT was refused")),
        }
    }

    /// Says goodbye, so that nothing that was sent before is lost.
    pub(crate) async fn disconnect(mut self) -> io::Result<()> {
        self.output.extend([0xE0, 0]);
        self.flush().await?;
        while self.fill().await.is_ok() {}
        Ok(())
    }

    /// Subscribes and waits for the SUBACK.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: u8) -> io::Result<()> {
        let mut body = vec![0, 1];
        string(&mut body, filter);
        body.push(qos);
        self.output.extend([0x82, body.len() as u8]);
        self.output.append(&mut body);
        self.flush().await?;
        match self.answer().await?[..] {
            [0x90, 3, 0, 1, granted] if granted == qos => Ok(()),
            _ => Err(io::Error::other("the SUBSCRIBE was refused")),
        }
    }

    /// The one packet that is due.
    async fn answer(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if self.input.len() >= 2 && self.input.len() >= 2 + usize::from(self.input[1]) {
                let answer = self.input.drain(..2 + usize::from(self.input[1])).collect();
                // What has come behind it is for whoever takes first.
                if self.input.is_empty() {
                    self.input = Vec::new();
                }
                return Ok(answer);
            }
            self.fill().await?;
        }
    }

    /// Sends `count` messages with one write.
    pub(crate) async fn publish(&mut self, template: &mut Template, count: u64) -> io::Result<()> {
        for _ in 0..count {
            template.append(&mut self.output);
        }
        self.flush().await
    }

    /// Appends a retained PUBLISH with QoS 1.
    pub(crate) fn retain(&mut self, topic: &str, number: u64) {
        let mut template = Template::new(0, topic, 1);
        template.packet[0] |= 1;
        template.next = number;
        template.append(&mut self.output);
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.socket.write_all(&self.output).await?;
            self.output.clear();
        }
        Ok(())
    }

    /// Waits for bytes and takes what there is, up to one large read.
    async fn fill(&mut self) -> io::Result<()> {
        self.fill_up_to(READ_LEN).await
    }

    async fn fill_up_to(&mut self, len_max: usize) -> io::Result<()> {
        loop {
            self.socket.readable().await?;
            let read = SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(READ_LEN, 0);
                let read = self.socket.try_read(&mut scratch[..len_max])?;
                self.input.extend(&scratch[..read]);
                io::Result::Ok(read)
            });
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Counts what has come behind the CONNACK already.
    pub(crate) async fn take_early(&mut self, tally: &Tally) -> io::Result<()> {
        self.handle(tally);
        self.flush().await
    }

    /// One read: counts what came and answers it with one write.
    pub(crate) async fn take(&mut self, tally: &Tally) -> io::Result<()> {
        self.fill().await?;
        self.handle(tally);
        self.flush().await
    }

    /// As [`Wire::take`], of at most `len_max` bytes: a client that is slow.
    pub(crate) async fn sip(&mut self, tally: &Tally, len_max: usize) -> io::Result<()> {
        self.fill_up_to(len_max).await?;
        self.handle(tally);
        self.flush().await
    }

    fn handle(&mut self, tally: &Tally) {
        let mut at = 0;
        while let Some((first, body, next)) = frame(&self.input, at) {
            match first >> 4 {
                3 => {
                    let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let rest = &body[2 + topic_len..];
                    let qos = first >> 1 & 3;
                    let payload = if qos == 0 { rest } else { &rest[2..] };
                    tally.note(payload);
                    if qos > 0 {
                        let kind = if qos == 1 { 0x40 } else { 0x50 };
                        self.output.extend([kind, 2, rest[0], rest[1]]);
                    }
                }
                // PUBACK and PUBCOMP end a publication, PUBREC asks for PUBREL, PUBREL for PUBCOMP.
                4 | 7 => tally.acked.set(tally.acked.get() + 1),
                5 => self.output.extend([0x62, 2, body[0], body[1]]),
                6 => self.output.extend([0x70, 2, body[0], body[1]]),
                _ => {}
            }
            at = next;
        }
        self.input.drain(..at);
        if self.input.is_empty() && self.input.capacity() > 4096 {
            self.input = Vec::new();
        }
    }
}

/// The packet that begins at `at`: first byte, body, and where the next one begins.
fn frame(input: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let first = *input.get(at)?;
    let (mut len, mut shift, mut begin) = (0, 0, at + 1);
    loop {
        let byte = *input.get(begin)?;
        begin += 1;
        len |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    Some((first, input.get(begin..begin + len)?, begin + len))
}
