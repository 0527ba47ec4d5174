"""JPEG Lossless and JPEG-LS frames of grey films, straight from GDCM and CharLS.

pydicom's plug-ins hand over the same values. On the way GDCM's become a Python string, then bytes, then an array: for a film of
2000 x 2000 pixels 40 MB more, and as much time again as the decoding.
"""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_grey_jpeg_lossless(
    coded: bytes, *, syntax: str, photometric: str, rows: int, columns: int, allocated: int, stored: int
) -> NDArray[Any] | None:
    """Unsigned values [rows, columns]. syntax: transfer syntax UID. allocated, stored: bits, as the header says.

    None for what is left to pydicom: a stream that GDCM does not decode, or not to as many bytes as the header says.
    """
    import gdcm

    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(coded)
    fragments.AddFragment(fragment)
    frame, decoded = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010)), gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    frame.SetValue(fragments.__ref__())
    codec = gdcm.JPEGCodec()
    if not codec.CanDecode(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax))):
        return None
    codec.SetNumberOfDimensions(2)
    codec.SetDimensions((columns, rows, 1))
    kind = gdcm.PhotometricInterpretation.GetPIType(photometric)
    codec.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    codec.SetPixelFormat(gdcm.PixelFormat(1, allocated, stored, stored - 1, 0))
    if not codec.Decode(frame, decoded):
        return None
    size = rows * columns * allocated // 8
    held = decoded.GetByteValue()
    if int(str(held.GetLength())) != size:
        return None
    # GDCM's Python side gives bytes as text only, so they are read where they lie, and stay for as long as the array.
    there = (ctypes.c_char * size).from_address(int(held.GetVoidPointer()))
    there.held_by = decoded  # type: ignore[attr-defined]
    values: NDArray[Any] = np.frombuffer(memoryview(there), f"u{allocated // 8}")
    return values.reshape(rows, columns)


def read_grey_jpeg_ls(coded: bytes, *, rows: int, columns: int, allocated: int) -> NDArray[Any] | None:
    """Unsigned values [rows, columns]; None where they come in fewer or more bytes than the header says: left to pydicom.

    Raises RuntimeError when the stream cannot be decoded.
    """
    import jpeg_ls

    held, said = jpeg_ls.decode_pixel_data(coded)
    if said["components"] != 1 or len(held) != rows * columns * allocated // 8:
        return None
    return np.frombuffer(held, f"<u{allocated // 8}").reshape(rows, columns)
