//! A client of a few lines on the other end of a connection.

use super::*;
use proptest::prelude::*;
use tokio::io::DuplexStream;

/// SYN_STREAM, which only clients send here.
fn put_open(out: &mut BytesMut, id: u32, fin: bool, block: &[u8]) {
    let length = u32::try_from(block.len() + 10).expect("short");
    out.extend_from_slice(&[0x80, 3, 0, 1]);
    out.extend_from_slice(&(u32::from(fin) << 24 | length).to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(block);
}

fn headers(kind: &str) -> Headers {
    vec![("streamtype".into(), kind.into()), ("port".into(), "80".into())]
}

/// What a server says next: the kind of a control frame, or 0 and the stream's data.
async fn next(client: &mut DuplexStream) -> (u16, u32, bool, Vec<u8>) {
    let mut start = [0; HEAD];
    client.read_exact(&mut start).await.expect("a frame");
    match frame::head(start).expect("a frame") {
        Head::Data { stream, fin, length } => {
            let mut data = vec![0; length];
            client.read_exact(&mut data).await.expect("its data");
            (0, stream, fin, data)
        }
        Head::Control { kind, flags, length } => {
            let mut payload = vec![0; length];
            client.read_exact(&mut payload).await.expect("its payload");
            let id = u32::from_be_bytes(*payload.first_chunk().expect("an id"));
            (kind, id, flags & 1 != 0, payload)
        }
    }
}

/// A server that says back what it is told.
async fn echo(io: DuplexStream) {
    let (mut opened, work) = connection(io, Idle::new());
    let serve = async {
        while let Some(stream) = opened.recv().await {
            if stream.header("StreamType") == Some("refused") {
                stream.refuse().await;
                continue;
            }
            let mut stream = stream.accept().await;
            let (mut reader, mut writer) = (stream.reader(), stream.writer());
            // A client that is gone ends it, too.
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            stream.finish().await;
        }
    };
    tokio::join!(work, serve);
}

#[tokio::test]
async fn a_stream_is_answered_and_says_back_what_it_is_told_to_its_end() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let talk = async {
        let mut packer = Packer::new();
        let mut out = BytesMut::new();
        put_open(&mut out, 1, false, &packer.pack(&headers("data")));
        frame::put_data(&mut out, 1, false, b"hello ");
        frame::put_data(&mut out, 1, true, b"world");
        frame::put_ping(&mut out, 7);
        client.write_all(&out).await.expect("the server reads");
        let mut said = Vec::new();
        let (mut replied, mut pinged) = (false, false);
        loop {
            match next(&mut client).await {
                (2, 1, ..) => replied = true,
                (6, 7, ..) => pinged = true,
                (0, 1, fin, data) => {
                    said.extend(data);
                    if fin {
                        break;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        if !pinged {
            assert_eq!(next(&mut client).await.0, 6);
        }
        assert!(replied);
        assert_eq!(said, b"hello world");
        drop(client);
    };
    tokio::join!(echo(server), talk);
}

#[tokio::test]
async fn a_refused_stream_is_reset_and_the_next_one_is_not() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let talk = async {
        let mut packer = Packer::new();
        let mut out = BytesMut::new();
        put_open(&mut out, 1, false, &packer.pack(&headers("refused")));
        put_open(&mut out, 3, true, &packer.pack(&headers("data")));
        client.write_all(&out).await.expect("the server reads");
        let (kind, id, _, payload) = next(&mut client).await;
        assert_eq!((kind, id, &payload[4..]), (3, 1, &[0, 0, 0, 3][..]));
        assert_eq!(next(&mut client).await.0, 2);
        assert_eq!(next(&mut client).await, (0, 3, true, Vec::new()));
        drop(client);
    };
    tokio::join!(echo(server), talk);
}

#[tokio::test]
async fn what_is_read_is_granted_again() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let talk = async {
        let mut out = BytesMut::new();
        put_open(&mut out, 1, false, &Packer::new().pack(&headers("data")));
        for _ in 0..4 {
            frame::put_data(&mut out, 1, false, &[1; 16 << 10]);
        }
        client.write_all(&out).await.expect("the server reads");
        let mut granted = HashMap::new();
        let mut back = 0;
        while granted.values().sum::<u32>() < 4 * GRANT || back < 64 << 10 {
            match next(&mut client).await {
                (9, id, _, payload) => {
                    let more = u32::from_be_bytes(*payload[4..].first_chunk().expect("a number"));
                    *granted.entry(id).or_default() += more;
                }
                (0, 1, _, data) => back += data.len(),
                _ => {}
            }
        }
        assert_eq!(granted, HashMap::from([(0, 2 * GRANT), (1, 2 * GRANT)]));
        drop(client);
    };
    tokio::join!(echo(server), talk);
}

#[tokio::test]
async fn when_all_has_been_said_the_connection_is_closed_in_order() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (opened, work) = connection(server, Idle::new());
    drop(opened);
    let talk = async {
        assert_eq!(next(&mut client).await.0, 7);
        assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
        drop(client);
    };
    tokio::join!(work, talk);
}

/// Frames that nearly are some.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let control = (0_u16..12, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
        |(kind, flags, payload)| {
            let mut bytes = vec![0x80, 3];
            bytes.extend(kind.to_be_bytes());
            bytes.push(flags);
            bytes.extend(&u32::try_from(payload.len()).expect("short").to_be_bytes()[1..]);
            bytes.extend(payload);
            bytes
        },
    );
    let opening = (0_u32..9, any::<bool>()).prop_map(|(id, fin)| {
        let mut out = BytesMut::new();
        put_open(&mut out, id, fin, &Packer::new().pack(&headers("data")));
        out.to_vec()
    });
    let data =
        (0_u32..9, any::<bool>(), prop::collection::vec(any::<u8>(), 0..99)).prop_map(|(id, fin, bytes)| {
            let mut out = BytesMut::new();
            frame::put_data(&mut out, id, fin, &bytes);
            out.to_vec()
        });
    prop_oneof![control, opening, data, prop::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    #[test]
    fn no_client_is_too_strange(frames in prop::collection::vec(hostile(), 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let talk = async {
                for frame in frames {
                    if client.write_all(&frame).await.is_err() {
                        return;
                    }
                }
                let _ = client.shutdown().await;
                let mut rest = Vec::new();
                let _ = client.read_to_end(&mut rest).await;
            };
            let both = async { tokio::join!(echo(server), talk) };
            tokio::time::timeout(Duration::from_secs(60), both).await.expect("it ends");
        });
    }
}
