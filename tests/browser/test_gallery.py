"""The outputs of a run: shown, played and saved."""

import wave
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from comfyui_workflow.runs.model import FileType
from tests.browser import workflows
from tests.browser.chromium import require_chromium
from tests.browser.dashboard import Dashboard
from tests.browser.recorded import completed, record
from tests.server_process import ServerProcess

COLORS = ("red", "green", "blue")

FILM = """async () => {
    const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 48});
    const context = canvas.getContext("2d");
    const recorder = new MediaRecorder(canvas.captureStream(), {mimeType: "video/webm;codecs=vp8"});
    const pieces = [];
    recorder.ondataavailable = ({data}) => { if (data.size) pieces.push(data); };
    const stopped = new Promise(resolve => { recorder.onstop = resolve; });
    recorder.start(20);
    for (let shade = 0; pieces.length < 5; shade = (shade + 20) % 256) {  // until frames have arrived
        context.fillStyle = `rgb(${shade}, 90, 40)`;
        context.fillRect(0, 0, 64, 48);
        await new Promise(requestAnimationFrame);
    }
    recorder.stop();
    await stopped;
    return [...new Uint8Array(await new Blob(pieces).arrayBuffer())];
}"""


def silence(path: Path) -> Path:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(2 * 8000))
    return path


@dataclass(frozen=True, kw_only=True)
class Made:
    """A server with finished runs, and the directory of their outputs."""

    server: ServerProcess
    directory: Path
    run_id: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Creates three pictures, a sound and a text of one run."""
    require_chromium()
    directory = tmp_path_factory.mktemp("gallery")
    text = directory / "notes.txt"
    text.write_text("what it thought")
    pictures = [workflows.picture(directory / f"{color}.png", color, (60, 40)) for color in COLORS]
    files = [(path, FileType.IMAGE) for path in pictures]
    files += [(silence(directory / "quiet.wav"), FileType.AUDIO), (text, FileType.TEXT)]
    run = completed("colours", *files)
    server = ServerProcess(directory)
    record(server.data_dir, [run])
    with server:
        yield Made(server=server, directory=directory, run_id=run.run_id)


@pytest.fixture
def gallery(make_dashboard: Callable[[ServerProcess], Dashboard], made: Made) -> Dashboard:
    dashboard = make_dashboard(made.server)
    dashboard.open_run(made.run_id)
    return dashboard


def color_of(picture: Locator) -> list[int]:
    """Returns the color of the center pixel of a decoded picture."""
    found: list[int] = picture.evaluate("""async img => {
        await img.decode();
        const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
        const context = canvas.getContext("2d");
        context.drawImage(img, img.naturalWidth / 2, img.naturalHeight / 2, 1, 1, 0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    }""")
    return found


def test_pictures_open_large_and_are_turned_over_by_keys(gallery: Dashboard) -> None:
    page = gallery.page
    small = page.locator("ul.gallery").get_by_role("img", name="red.png")
    assert small.evaluate("async img => { await img.decode(); return img.naturalWidth; }") == 60
    small.click()
    viewer = page.get_by_role("dialog", name="Picture")
    large = viewer.get_by_role("img")
    expect(large).to_have_attribute("alt", "red.png")
    assert color_of(large) == [255, 0, 0]
    page.keyboard.press("ArrowRight")
    expect(large).to_have_attribute("alt", "green.png")
    assert color_of(large) == [0, 128, 0]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(large).to_have_attribute("alt", "blue.png")
    assert color_of(large) == [0, 0, 255]
    viewer.get_by_role("button", name="Next picture").click()
    expect(large).to_have_attribute("alt", "red.png")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page.locator("ul.gallery a.picture").first).to_be_focused()


def test_the_large_picture_is_closed_by_its_button_and_beside_it(gallery: Dashboard) -> None:
    page = gallery.page
    viewer = page.get_by_role("dialog", name="Picture")
    for close in (viewer.get_by_role("button", name="Close"), viewer.locator(".bar .name")):
        page.locator("ul.gallery").get_by_role("img", name="green.png").click()
        expect(viewer).to_be_visible()
        close.click()
        expect(viewer).to_be_hidden()


def test_sound_plays_and_other_files_are_linked(gallery: Dashboard) -> None:
    sound = gallery.page.locator("ul.gallery audio")
    expect(sound).to_have_attribute("aria-label", "quiet.wav")
    sound.evaluate("audio => { audio.muted = true; return audio.play(); }")
    assert sound.evaluate("audio => audio.duration") == 1
    assert "/outputs/4" in str(gallery.page.locator("ul.gallery a.file").get_attribute("href"))


def test_a_film_plays(
    page: Page,
    make_server: Callable[..., ServerProcess],
    make_dashboard: Callable[[ServerProcess], Dashboard],
    tmp_path: Path,
) -> None:
    film = tmp_path / "short.webm"
    film.write_bytes(bytes(page.evaluate(FILM)))
    run = completed("a film", (film, FileType.VIDEO))
    record(tmp_path / "data", [run])
    make_dashboard(make_server(data_dir=tmp_path / "data")).open_run(run.run_id)
    player = page.locator("ul.gallery video")
    expect(player).to_have_attribute("aria-label", "short.webm")
    player.evaluate("video => { video.muted = true; return video.play(); }")
    assert player.evaluate("video => [video.videoWidth, video.videoHeight]") == [64, 48]


def test_one_file_is_saved_and_all_of_them(gallery: Dashboard, made: Made) -> None:
    page = gallery.page
    with page.expect_download() as one:
        page.get_by_role("link", name="green.png").and_(page.locator("[download]")).click()
    assert one.value.suggested_filename == "green.png"
    assert one.value.path().read_bytes() == (made.directory / "green.png").read_bytes()
    with page.expect_download() as everything:
        page.get_by_role("link", name="Download all").click()
    assert everything.value.suggested_filename == "colours.zip"
    with zipfile.ZipFile(everything.value.path()) as archive:
        names = [f"{color}.png" for color in COLORS]
        assert sorted(archive.namelist()) == sorted([*names, "quiet.wav", "notes.txt"])
        assert archive.read("blue.png") == (made.directory / "blue.png").read_bytes()
