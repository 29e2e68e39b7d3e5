//! Frames as a broker sends them, whole and in pieces, good and bad.

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 1];
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(0xce);
    frame
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn deliver(key: &[u8]) -> Vec<u8> {
    let numbers = [0_u8; 9];
    frame(
        METHOD,
        &[&[0, 60, 0, 60], &short(b"tag")[..], &numbers, &short(b"x"), &short(key)].concat(),
    )
}

fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
    let sizes = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    frame(HEADER, &[&sizes[..], &flags.to_be_bytes(), properties].concat())
}

fn table(entries: &[u8]) -> Vec<u8> {
    [&u32::try_from(entries.len()).unwrap().to_be_bytes(), entries].concat()
}

fn nested(levels: usize) -> Vec<u8> {
    let mut inner = table(&[]);
    for _ in 0..levels {
        inner = table(&[&short(b"t")[..], b"F", &inner].concat());
    }
    inner
}

fn mended(input: &[u8], piece: usize) -> Vec<u8> {
    let mut mender = Mender::new();
    let mut output = Vec::new();
    let mut give = |mender: &mut Mender| {
        let mut some = [0; 13];
        loop {
            match mender.give(&mut some) {
                0 => return,
                count => output.extend(&some[..count]),
            }
        }
    };
    for piece in input.chunks(piece) {
        mender.room()[..piece.len()].copy_from_slice(piece);
        mender.read(piece.len());
        give(&mut mender);
    }
    mender.read(0);
    give(&mut mender);
    output
}

/// Mends the input in one piece and in many; both must come out the same.
fn check(input: &[u8], expected: &[u8]) {
    for piece in [READ_BYTES, 1, 2, 11] {
        assert_eq!(mended(input, piece), expected, "in pieces of {piece}");
    }
}

#[test]
fn what_is_readable_passes_as_it_is() {
    let headers = [&short(b"covibes-attempt")[..], b"l", &[0; 8], &short("é".as_bytes()), b"V"];
    let nested =
        table(&[&short(b"x-death")[..], b"A", &table(&[&b"F"[..], &table(&[])].concat())].concat());
    let everything = [
        b"AMQP\0\0\x09\x01".to_vec(),
        deliver("team.ä.start".as_bytes()),
        header(1 << 15 | 1 << 13, &[short(b"text/plain"), table(&headers.concat())].concat()),
        frame(BODY, &[0xff, 0xce, 0, 1]),
        frame(HEARTBEAT, &[]),
        header(1 << 13, &nested),
        header(0, &[]),
    ];
    // The protocol header is what a broker of another version answers.
    for one in everything {
        check(&one, &one);
    }
    let two = [deliver(b"team.a.stop"), header(0, &[]), frame(BODY, b"hello")].concat();
    check(&two, &two);
}

#[test]
fn bytes_that_are_no_text_become_question_marks() {
    check(&deliver(b"team.\xff\xfe.stop"), &deliver(b"team.??.stop"));
    // Cut in the middle of a character, and right behind one that is whole.
    check(&deliver("é\u{20ac}".as_bytes().split_last().unwrap().1), &deliver("é??".as_bytes()));
    let got = |key: &[u8]| {
        frame(METHOD, &[&[0, 60, 0, 71][..], &[0; 9], &short(b"x"), &short(key), &[0; 4]].concat())
    };
    check(&got(b"\x80"), &got(b"?"));
    let returned = |key: &[u8]| {
        frame(
            METHOD,
            &[&[0, 60, 0, 50, 1, 56][..], &short(b"no"), &short(b"x"), &short(key)].concat(),
        )
    };
    check(&returned(b"a\xc0"), &returned(b"a?"));
    let properties = |text: &[u8]| {
        let name = [&short(text)[..], b"t\x01"].concat();
        let properties =
            [short(text), table(&name), vec![2, 0], short(text), vec![9; 8], short(text)];
        header(
            1 << 15 | 1 << 13 | 1 << 12 | 1 << 11 | 1 << 7 | 1 << 6 | 1 << 2,
            &properties.concat(),
        )
    };
    check(&properties(b"\xe9t\xe9"), &properties(b"?t?"));
    // Bytes elsewhere are nobody's text.
    check(&frame(BODY, b"\xff"), &frame(BODY, b"\xff"));
}

#[test]
fn properties_that_cannot_be_read_are_left_out() {
    let bare = header(0, &[]);
    let with_table =
        |entries: &[u8]| header(1 << 13 | 1 << 7, &[table(entries), short(b"id")].concat());
    let unknown = with_table(&[&short(b"n")[..], b"Z\x01"].concat());
    let cut = with_table(&[&short(b"n")[..], b"S\0\0\0\x09abc"].concat());
    let nothing = with_table(&short(b"n"));
    let too_long = header(1 << 15, b"\x09abc");
    let wide = with_table(&[&short(b"n")[..], b"S", &table(&[b'x'; PROPERTIES_MAX])].concat());
    for bad in [unknown, cut, nothing, too_long, wide, header(1 << 13, &nested(20_000))] {
        check(&bad, &bare);
        // What follows is not lost.
        let two = [&bad[..], &frame(BODY, b"hello"), &deliver(b"\xff")].concat();
        check(&two, &[&bare[..], &frame(BODY, b"hello"), &deliver(b"?")].concat());
    }
    let deep = header(1 << 13, &nested(10));
    check(&deep, &deep);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic_and_no_body_is_changed(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        body in prop::collection::vec(any::<u8>(), 0..50),
        piece in 1_usize..40,
    ) {
        let bodies = frame(BODY, &body);
        prop_assert_eq!(mended(&bodies, piece), bodies);
        mended(&noise, piece);
        for kind in [METHOD, HEADER] {
            // Whatever it holds, the frame behind it stays in place.
            let behind = frame(HEARTBEAT, &[]);
            let out = mended(&[frame(kind, &noise), behind.clone()].concat(), piece);
            prop_assert!(out.ends_with(&behind));
        }
    }
}
