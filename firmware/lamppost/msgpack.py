"""MessagePack for the small documents: about, status, marks and times. Frames have an encoder of their own in `batch.py`."""

import struct

MAX_DEPTH = 6


def pack(value):
    """`value` as MessagePack bytes: None, bool, int (64 bits), float, str, bytes, list or tuple, dict with text keys.

    Keys are written in sorted order, since MicroPython keeps none: the same document always gives the same bytes, and so the same
    revision. Raises TypeError for anything else.
    """
    out = bytearray()
    _pack(out, value)
    return bytes(out)


def _pack(out, value):
    if value is None:
        out.append(0xC0)
    elif value is True or value is False:
        out.append(0xC3 if value else 0xC2)
    elif isinstance(value, int):
        _pack_int(out, value)
    elif isinstance(value, float):
        out.extend(struct.pack(">Bd", 0xCB, value))
    elif isinstance(value, str):
        data = value.encode()
        _pack_size(out, len(data), 0xA0, 31, 0xD9)
        out.extend(data)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        _pack_size(out, len(value), 0, -1, 0xC4)
        out.extend(value)
    elif isinstance(value, (list, tuple)):
        _pack_size(out, len(value), 0x90, 15, 0xDB)
        for item in value:
            _pack(out, item)
    elif isinstance(value, dict):
        _pack_size(out, len(value), 0x80, 15, 0xDD)
        for key in sorted(value):
            if not isinstance(key, str):
                raise TypeError("a key must be text")
            _pack(out, key)
            _pack(out, value[key])
    else:
        raise TypeError("can't be written: " + repr(type(value)))


def _pack_int(out, value):
    if value >= 0:
        if value < 0x80:
            out.append(value)
        elif value < 0x100:
            out.extend(struct.pack(">BB", 0xCC, value))
        elif value < 0x10000:
            out.extend(struct.pack(">BH", 0xCD, value))
        elif value <= 0xFFFFFFFF:
            out.extend(struct.pack(">BI", 0xCE, value))
        else:
            out.extend(struct.pack(">BQ", 0xCF, value))
    elif value >= -32:
        out.append(value & 0xFF)
    elif value >= -0x80:
        out.extend(struct.pack(">Bb", 0xD0, value))
    elif value >= -0x8000:
        out.extend(struct.pack(">Bh", 0xD1, value))
    elif value >= -0x80000000:
        out.extend(struct.pack(">Bi", 0xD2, value))
    else:
        out.extend(struct.pack(">Bq", 0xD3, value))


def _pack_size(out, size, fixed, fixed_most, long_form):
    # `long_form` is the lead byte of the 8-bit form; arrays and maps have none, so theirs is one below their 16-bit form.
    if size <= fixed_most:
        out.append(fixed | size)
    elif size < 0x100 and long_form in (0xD9, 0xC4):
        out.extend(struct.pack(">BB", long_form, size))
    elif size < 0x10000:
        out.extend(struct.pack(">BH", long_form + 1, size))
    else:
        raise ValueError("too long")


def unpack(data):
    """What `data` (bytes) says: None, truth values, integers, floats, text, bytes, and lists of these. Raises ValueError for anything else,
    for bytes that are missing or left over, and for lists nested deeper than MAX_DEPTH. Maps are refused: no message to a node has one."""
    value, at = _unpack(memoryview(data), 0, 0)
    if at != len(data):
        raise ValueError("trailing bytes")
    return value


_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_SIZES = {0xC4: ">B", 0xC5: ">H", 0xD9: ">B", 0xDA: ">H", 0xDC: ">H"}


def _take(data, at, form):
    end = at + struct.calcsize(form)
    if end > len(data):
        raise ValueError("cut short")
    return struct.unpack_from(form, data, at)[0], end


def _unpack(data, at, depth):
    lead, at = _take(data, at, ">B")
    if lead < 0x80:
        return lead, at
    if lead >= 0xE0:
        return lead - 0x100, at
    if lead == 0xC0:
        return None, at
    if lead in (0xC2, 0xC3):
        return lead == 0xC3, at
    if lead in _NUMBERS:
        return _take(data, at, _NUMBERS[lead])
    if 0x90 <= lead <= 0x9F:
        size = lead & 0x0F
        is_list = True
    elif 0xA0 <= lead <= 0xBF:
        size = lead & 0x1F
        is_list = False
    elif lead in _SIZES:
        size, at = _take(data, at, _SIZES[lead])
        is_list = lead == 0xDC
    else:
        raise ValueError("a form that no message has")
    if size > len(data) - at:  # each item takes a byte at least: refuse before anything of that size is made
        raise ValueError("cut short")
    if not is_list:
        item = bytes(data[at : at + size])
        if lead in (0xC4, 0xC5):
            return item, at + size
        try:
            return str(item, "utf-8"), at + size
        except UnicodeError:
            raise ValueError("not text") from None
    if depth >= MAX_DEPTH:
        raise ValueError("nested too deeply")
    items = []
    for _ in range(size):
        item, at = _unpack(data, at, depth + 1)
        items.append(item)
    return items, at
