"""Hypothesis strategies for chunked bodies."""

from hypothesis import strategies as st

TOKENS = st.sampled_from([b"a", b"name", b"!#$", b"5"])
EXTENSIONS = st.lists(
    st.one_of(
        TOKENS.map(b";".__add__),
        st.builds(b";%b=%b".__mod__, st.tuples(TOKENS, TOKENS)),
        st.builds(b'; %b="%b"'.__mod__, st.tuples(TOKENS, st.sampled_from([b"", b';\\"', b" "]))),
    ),
    max_size=2,
).map(b"".join)


TRAILERS = st.lists(st.sampled_from([b"X: 1\r\n", b"X-Checksum: \t abc\r\n"]), max_size=2).map(
    b"".join
)


@st.composite
def in_chunks(draw, body):
    """Return this body in chunks of any sizes, with extensions and trailers."""
    pieces = []
    position = 0
    while position < len(body):
        size = draw(st.integers(1, len(body) - position))
        number = draw(st.sampled_from([b"%x", b"%X", b"00%x"])) % size
        chunk = body[position : position + size]
        pieces.append(number + draw(EXTENSIONS) + b"\r\n" + chunk + b"\r\n")
        position += size
    pieces.append(draw(st.sampled_from([b"0", b"000"])) + draw(EXTENSIONS) + b"\r\n")
    pieces.append(draw(TRAILERS) + b"\r\n")
    return b"".join(pieces)
