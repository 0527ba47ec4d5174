"""PNG, JPEG, TIFF and BMP films come out as a person sees them, or are refused."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from house import EXAMPLES
from numpy.typing import NDArray
from PIL import Image

from cxredge.errors import FilmRefusedError, Refusal
from cxredge.imaging import Preprocessing, read_film
from cxredge.imaging.preprocess import decode
from cxredge.imaging.raster import read_raster

AT_LEAST = 448
SaveFilm = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> SaveFilm:
    def write(pixels: NDArray[np.generic] | Image.Image, suffix: str, **options: object) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}{suffix}"
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        picture.save(path, **options)  # type: ignore[arg-type]
        return path

    return write


def pixels_of(path: Path) -> NDArray[np.uint8]:
    return decode(path, at_least=AT_LEAST).pixels


def refusal(path: Path) -> FilmRefusedError:
    with pytest.raises(FilmRefusedError) as refused:
        read_film(path, Preprocessing())
    return refused.value


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_eight_bit_picture_stays_as_it_is(save: SaveFilm, film8: NDArray[np.uint8], suffix: str, mode: str) -> None:
    np.testing.assert_array_equal(pixels_of(save(Image.fromarray(film8).convert(mode), suffix)), film8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_picture_is_stretched_between_percentiles(
    save: SaveFilm, film12: NDArray[np.uint16], suffix: str
) -> None:
    low, high = np.percentile(film12, (0.5, 99.5))
    expected = np.rint(np.clip((film12 - low) / (high - low), 0, 1) * 255)
    assert np.abs(pixels_of(save(film12, suffix)) - expected).max() <= 1


def test_sixteen_bit_picture_agrees_with_the_same_film_as_dicom(
    save: SaveFilm, write_dicom: Callable[..., Path], film12: NDArray[np.uint16]
) -> None:
    off = np.abs(pixels_of(save(film12, ".png")).astype(int) - pixels_of(write_dicom(film12, bits=12)))
    assert off.max() <= 1


@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
def test_white_is_zero_tiff_is_turned_around(
    save: SaveFilm, film8: NDArray[np.uint8], film12: NDArray[np.uint16], deep: bool
) -> None:
    path = save(film12 if deep else film8, ".tif")
    black_is_zero = pixels_of(path)
    path.write_bytes(as_white_is_zero(path.read_bytes()))
    np.testing.assert_array_equal(pixels_of(path), 255 - black_is_zero)


def as_white_is_zero(tiff: bytes) -> bytes:
    """A little-endian TIFF with Photometric Interpretation 1 said to be 0."""
    tag = b"\x06\x01\x03\x00\x01\x00\x00\x00"
    assert tiff.count(tag + b"\x01\x00") == 1
    return tiff.replace(tag + b"\x01\x00", tag + b"\x00\x00")


def test_transparent_pixels_are_black(save: SaveFilm, film8: NDArray[np.uint8]) -> None:
    opaque = np.full_like(film8, 255)
    opaque[:, :40] = 0
    path = save(np.dstack([film8, film8, film8, opaque]), ".png")
    pixels = pixels_of(path)
    assert not pixels[:, :40].any()
    np.testing.assert_array_equal(pixels[:, 40:], film8[:, 40:])


def test_rotated_jpeg_is_turned_upright(save: SaveFilm, film8: NDArray[np.uint8]) -> None:
    film = Image.fromarray(film8[:240])
    upright = save(film, ".jpg", quality=95)
    orientation = Image.Exif()
    orientation[0x0112] = 6
    sideways = save(film.transpose(Image.Transpose.ROTATE_90), ".jpg", quality=95, exif=orientation)
    plane = decode(sideways, at_least=AT_LEAST)
    assert (plane.rows, plane.columns) == (240, 320)
    assert np.abs(plane.pixels.astype(int) - pixels_of(upright)).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("how", [{}, {"compression": "tiff_lzw"}], ids=str)
def test_a_turned_tiff_keeps_its_proportions(
    save: SaveFilm, film8: NDArray[np.uint8], orientation: int, how: dict[str, str]
) -> None:
    film = Image.fromarray(film8[:240])
    back = {
        2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE",
        8: "ROTATE_270",
    }  # fmt: skip
    turned = film.transpose(Image.Transpose[back[orientation]]) if orientation > 1 else film
    plane = decode(save(turned, ".tif", tiffinfo={0x0112: orientation}, **how), at_least=AT_LEAST)
    assert (plane.rows, plane.columns) == (240, 320)
    assert np.array_equal(plane.pixels, np.asarray(film))


@pytest.mark.parametrize("how", ["tiff_adobe_deflate", "packbits", "jpeg"])
def test_a_compressed_tiff_with_sectors_that_the_disk_never_got_is_refused(
    save: SaveFilm, film8: NDArray[np.uint8], how: str
) -> None:
    path = save(Image.fromarray(film8).resize((1000, 1000)), ".tif", compression=how)
    read_film(path, Preprocessing())
    whole = path.read_bytes()
    for share in (0.3, 0.5, 0.7):
        at = int(len(whole) * share) // 512 * 512
        path.write_bytes(whole[:at] + bytes(4096) + whole[at + 4096 :])
        assert refusal(path).reason is Refusal.DAMAGED


def patched(path: Path, *tags: tuple[int, str, int, int]) -> Path:
    """A TIFF whose header says something else of its values. tags: number, struct code, what it says and what it shall say."""
    content = path.read_bytes()
    for tag, code, before, after in tags:
        head = struct.pack("<HHI", tag, 4 if code == "I" else 3, 1)
        old, new = (struct.pack(f"<{code}", *([value] if code == "I" else [value, 0])) for value in (before, after))
        content = content.replace(head + old, head + new)
    path.write_bytes(content)
    return path


def test_a_tiff_of_values_that_pillow_misreads_is_refused(save: SaveFilm, film8: NDArray[np.uint8]) -> None:
    # Four bytes a value of 32 bits, until the header says otherwise.
    wide = save(np.ascontiguousarray(film8).view(np.int32), ".tif")
    path = patched(wide, (256, "I", 80, 320), (256, "HH", 80, 320), (258, "HH", 32, 8))
    with Image.open(path) as picture:
        assert picture.size == (320, 320)
    assert "signed values of 8 bits" in str(refusal(path).detail)
    for factor, says in ((9_000_000, "unsigned values of more than 31 bits"), (9, "")):
        values = (film8.astype(np.uint32) * factor).astype(np.uint32).view(np.int32)
        path = patched(save(values, ".tif"), (339, "HH", 2, 1))
        if says:
            assert says in str(refusal(path).detail)
        else:
            read_film(path, Preprocessing())
    read_film(save(film8.astype(np.int32) - 100, ".tif"), Preprocessing())


def test_a_whole_tiff_of_a_kind_that_pillow_does_not_know_is_not_called_damaged(
    save: SaveFilm, film8: NDArray[np.uint8]
) -> None:
    path = patched(save(film8.astype(np.float32), ".tif"), (258, "HH", 32, 16))
    assert refusal(path).reason is Refusal.UNSUPPORTED
    path.write_bytes(path.read_bytes()[:60])
    assert refusal(path).reason is Refusal.DAMAGED


def test_unsigned_values_of_32_bits_are_looked_at_for_what_the_disk_never_got(
    save: SaveFilm, film8: NDArray[np.uint8]
) -> None:
    """Before the picture is loaded: afterwards Pillow no longer says where its pixels lie."""
    large = np.asarray(Image.fromarray(film8).resize((1000, 1000))).astype(np.int32)
    path = patched(save(large * 9 + 1, ".tif"), (339, "HH", 2, 1))
    read_film(path, Preprocessing())
    whole = path.read_bytes()
    begins = len(whole) - large.nbytes
    at = next(at for at in range(len(whole) // 1024 * 512, len(whole), 512) if 1000 < (at - begins) % 4000 < 3000)
    path.write_bytes(whole[:at] + bytes(len(whole) - at))
    assert refusal(path).reason is Refusal.DAMAGED


def test_a_big_tiff_is_a_picture(save: SaveFilm, film8: NDArray[np.uint8]) -> None:
    assert np.array_equal(pixels_of(save(film8, ".tif", big_tiff=True)), film8)


def test_large_jpeg_decoded_smaller_is_close_to_the_whole(save: SaveFilm, sample: Callable[[str], Path]) -> None:
    film = Image.fromarray(pixels_of(sample("RG1_UNCR.dcm")))
    path = save(film, ".jpg", quality=95)
    plane = decode(path, at_least=AT_LEAST)
    assert min(plane.pixels.shape) < min(plane.rows, plane.columns) / 2
    assert min(plane.pixels.shape) >= AT_LEAST
    whole = read_film(save(film, ".png"), Preprocessing())
    drafted = read_film(path, Preprocessing())
    assert (drafted.rows, drafted.columns, drafted.box) == (whole.rows, whole.columns, whole.box)
    off = np.abs(drafted.image.astype(int) - whole.image)
    assert off.mean() < 1
    assert np.percentile(off, 99) <= 6


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_cut_off_picture_is_refused(
    tmp_path: Path, film8: NDArray[np.uint8], format_: str, share: float, recwarn: pytest.WarningsRecorder
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(film8).save(buffer, format_)
    path = tmp_path / "cut"
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
    assert refusal(path).reason in (Refusal.ENDS_EARLY, Refusal.DAMAGED)
    assert not recwarn.list


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "BMP"])
def test_garbage_never_crashes(tmp_path: Path, film8: NDArray[np.uint8], format_: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(film8[:100, :100]).save(buffer, format_)
    generator = np.random.default_rng(0)
    path = tmp_path / "soiled"
    for _ in range(60):
        soiled = bytearray(buffer.getvalue())
        at = int(generator.integers(4, len(soiled) - 20))
        soiled[at : at + 20] = generator.bytes(20)
        path.write_bytes(bytes(soiled))
        try:
            assert read_film(path, Preprocessing()).image.shape == (1, 224, 224)
        except FilmRefusedError:
            continue


def test_several_pages_are_refused(save: SaveFilm, film8: NDArray[np.uint8]) -> None:
    pages = [Image.fromarray(film8), Image.fromarray(film8[::-1].copy())]
    path = save(pages[0], ".tif", save_all=True, append_images=pages[1:])
    assert refusal(path).reason is Refusal.MULTI_FRAME


def test_decompression_bomb_is_refused_unopened(save: SaveFilm) -> None:
    assert refusal(save(Image.new("1", (9000, 9000)), ".png")).reason is Refusal.TOO_LARGE
    assert refusal(save(Image.new("1", (20_000, 20_000)), ".png")).reason is Refusal.TOO_LARGE


def test_text_is_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("not a film")
    assert refusal(path).reason is Refusal.NOT_AN_IMAGE


def test_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_film(tmp_path / "gone.png", Preprocessing())


def coloured(film8: NDArray[np.uint8], tint: float) -> Image.Image:
    """The film with its right half tinted blue."""
    rgb = np.repeat(film8[..., None], 3, 2).astype(float)
    rgb[:, 160:, :2] *= 1 - tint
    return Image.fromarray(rgb.astype(np.uint8))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_a_colour_picture_is_refused_and_a_grey_one_in_three_channels_is_not(
    tmp_path: Path, film8: NDArray[np.uint8], suffix: str
) -> None:
    grey, blue = tmp_path / f"grey.{suffix}", tmp_path / f"blue.{suffix}"
    coloured(film8, 0).save(grey)
    coloured(film8, 0.8).save(blue)
    read_film(grey, Preprocessing())
    with pytest.raises(FilmRefusedError) as refused:
        read_film(blue, Preprocessing())
    assert refused.value.reason is Refusal.COLOUR


def test_a_coloured_mark_on_a_film_does_not_refuse_it(tmp_path: Path, film8: NDArray[np.uint8]) -> None:
    marked = coloured(film8, 0)
    marked.paste((255, 230, 0), (5, 5, 60, 40))
    marked.save(tmp_path / "marked.png")
    read_film(tmp_path / "marked.png", Preprocessing())


@pytest.mark.parametrize(("mode", "suffix"), [("rgb", "png"), ("grey and alpha", "png"), ("rgb", "tiff")])
def test_deep_colour_is_refused_rather_than_cut_to_eight_bits(tmp_path: Path, mode: str, suffix: str) -> None:
    grey = np.asarray(Image.open(EXAMPLES / "00028351_000.jpg").convert("L")).astype(np.uint16) * 64
    deep = np.stack([grey] * 3, axis=-1) if mode == "rgb" else np.stack([grey, np.full_like(grey, 65535)], axis=-1)
    coded = imagecodecs.png_encode(deep) if suffix == "png" else imagecodecs.tiff_encode(deep, photometric="rgb")
    (tmp_path / f"film.{suffix}").write_bytes(coded)
    with pytest.raises(FilmRefusedError, match="16 bits a colour"):
        read_raster(tmp_path / f"film.{suffix}", at_least=448)
    (tmp_path / "grey.png").write_bytes(imagecodecs.png_encode(grey))
    assert read_raster(tmp_path / "grey.png", at_least=448).pixels.shape == grey.shape
