"""Getting the data: every way it can go wrong, on a small server on this machine, with a tiny archive."""
import hashlib
import http.server
import io
import os
import pickle
import socket
import sys
import tarfile
import threading
import time

import numpy
import pytest
import torch

import data
from data import CIFAR10


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def archive(monkeypatch, tmp_path):
    """The bytes of an archive like CIFAR-10's, with 10 images a file; torchvision is told its MD5s."""
    monkeypatch.chdir(tmp_path)
    files = {}
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        pixels = numpy.random.default_rng(len(files)).integers(0, 256, (10, 3072), dtype=numpy.uint8)
        files[name] = pickle.dumps({"data": pixels, "labels": list(range(10))})
    files["batches.meta"] = pickle.dumps({"label_names": list(data.CLASSES)})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(files[name])] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, md5(files[name])] for name, _ in CIFAR10.test_list])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(files["batches.meta"])})
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(buffer.getvalue()))
    monkeypatch.setattr(data, "TIMEOUT", 0.3)
    return buffer.getvalue()


@pytest.fixture
def server(archive, monkeypatch):
    """Its address; what it does with a request is the request's path: /whole, /404, /html, /short, /silent, /slow.

    server.use(paths) makes them the only addresses that data.py knows; server.asked lists what was asked for.
    """
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            what = self.path.strip("/")
            httpd.asked.append(what)
            if what == "404":
                return self.send_error(404)
            if what == "silent":
                return release.wait(10)
            body = b"<html>Please log in to the Wi-Fi</html>" if what == "html" else archive
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if what == "slow":
                self.wfile.write(body[:1000])
                time.sleep(0.2)
                body = body[1000:]
            self.wfile.write(body[:len(body) // 2] if what == "short" else body)

        def log_message(self, *args):
            pass

    release = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        httpd.asked = []
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        httpd.url = f"http://127.0.0.1:{httpd.server_port}"
        httpd.use = lambda *whats: monkeypatch.setattr(data, "MIRRORS", [f"{httpd.url}/{what}" for what in whats])
        yield httpd
        release.set()
        httpd.shutdown()
        thread.join()


@pytest.fixture
def quick(monkeypatch):
    """Stripes that take no time to draw."""
    monkeypatch.setattr(data, "stripes", lambda train: (torch.zeros(20, 3, 32, 32, dtype=torch.uint8), torch.arange(20) % 10))


@pytest.fixture
def down():
    """An address at which nobody answers."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


def cifar10(root="data"):
    """What a script does."""
    return data.load(True, "cifar10", root), data.load(False, "cifar10", root)


def ten_and_fifty(sets):
    trainset, testset = sets
    return len(trainset) == 50 and len(testset) == 10 and trainset[:][0].shape == (50, 3, 32, 32)


def test_a_whole_archive_is_downloaded_checked_and_unpacked(server, capsys):
    server.use("whole")
    assert ten_and_fifty(cifar10("data"))
    printed = capsys.readouterr().out
    assert f"{server.url}/whole" in printed and "Unpacking" in printed and printed.isascii()
    assert sorted(os.listdir("data")) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


@pytest.mark.parametrize("what, why", [
    ("404", "HTTPError: HTTP Error 404"), ("html", "RuntimeError: File not found or corrupted"),
    ("short", "RuntimeError: File not found or corrupted"), ("silent", "timed out")])
def test_what_one_address_does_wrong_is_said_and_the_next_is_tried(server, capsys, what, why):
    server.use(what, "whole")
    assert ten_and_fifty(cifar10("data"))
    printed = capsys.readouterr().out
    assert why in printed and printed.index(f"/{what}") < printed.index(why) < printed.index("/whole")
    assert sorted(os.listdir("data")) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_an_address_where_nobody_answers_is_unreachable(server, down, monkeypatch, capsys):
    monkeypatch.setattr(data, "MIRRORS", [down, f"{server.url}/whole"])
    assert ten_and_fifty(cifar10("data"))
    assert "Connection refused" in capsys.readouterr().out


def test_when_every_address_fails_each_says_why_and_nothing_is_left_behind(server, capsys):
    server.use("404", "html")
    with pytest.raises(data.UserError, match="CIFAR-10 is not in .*data, and no address sends it.*--dataset stripes"):
        cifar10("data")
    assert "HTTP Error 404" in (printed := capsys.readouterr().out) and "corrupted" in printed
    assert os.listdir("data") == []


def test_the_time_limit_is_for_the_download_only(server):
    server.use("silent")
    with pytest.raises(data.UserError):
        cifar10("data")
    assert socket.getdefaulttimeout() is None


def test_what_is_there_and_whole_is_used_without_the_network(server):
    server.use("whole")
    cifar10("data")
    os.remove("data/cifar-10-python.tar.gz")  # the unpacked files are enough
    server.asked.clear()
    assert ten_and_fifty(cifar10("data")) and server.asked == []


def test_an_archive_put_there_by_hand_is_used_as_it_is(server, archive, capsys):
    os.mkdir("data")
    with open("data/cifar-10-python.tar.gz", "wb") as file:
        file.write(archive)
    assert ten_and_fifty(cifar10("data"))
    assert server.asked == [] and "Downloading" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", ["cut short", "missing"])
def test_a_damaged_file_is_unpacked_again_without_the_network(server, name, damage):
    server.use("whole")
    before = cifar10("data")
    path = f"data/cifar-10-batches-py/{name}"
    os.truncate(path, 10) if damage == "cut short" else os.remove(path)
    server.asked.clear()
    after = cifar10("data")
    assert server.asked == [] and all((a[:][0] == b[:][0]).all() for a, b in zip(before, after))


def test_a_half_downloaded_archive_is_fetched_again(server, archive):
    os.mkdir("data")
    with open("data/cifar-10-python.tar.gz", "wb") as file:
        file.write(archive[:1000])
    server.use("whole")
    assert ten_and_fifty(cifar10("data"))
    assert "whole" in server.asked


def test_the_official_host_comes_last():
    assert len(data.MIRRORS) == 3 and data.MIRRORS[-1] == CIFAR10.url
    assert all(address.startswith("https://") for address in data.MIRRORS)


def test_the_folder_of_the_batches_itself_is_recognised(server, capsys):
    """People who have the files from elsewhere name the folder cifar-10-batches-py, one level too deep."""
    server.use("whole")
    cifar10("data")
    server.asked.clear()
    for root in ("data/cifar-10-batches-py", "data/cifar-10-batches-py/", os.path.abspath("data/cifar-10-batches-py")):
        assert ten_and_fifty(cifar10(root))
    assert server.asked == [] and "cifar-10-batches-py" not in os.listdir("data/cifar-10-batches-py")


def test_a_folder_that_nobody_may_write_to_is_only_read_if_the_files_are_whole(server, monkeypatch):
    server.use("whole")
    cifar10("data")

    def read_only(*args, **flags):
        raise OSError(30, "Read-only file system")

    for function in ("makedirs", "replace", "mkdir", "remove"):
        monkeypatch.setattr(os, function, read_only)
    assert ten_and_fifty(cifar10("data"))


def test_three_threads_at_once_all_end_well(server, archive):
    """Each downloads or finds the archive; none sees another's half; nothing is left behind."""
    server.use("slow")
    results = []
    threads = [threading.Thread(target=lambda: results.append(ten_and_fifty(cifar10("data")))) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert results == [True, True, True]
    assert sorted(os.listdir("data")) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_files_that_are_whole_but_cannot_be_used_are_no_reason_to_download(server, few, monkeypatch):
    """As with PyTorch 2.2 and NumPy 2. The error is shown, and nothing is trained on stripes instead."""
    server.use("whole")
    cifar10("data")
    server.asked.clear()

    def unavailable(array):
        raise RuntimeError("Numpy is not available")

    monkeypatch.setattr(torch, "from_numpy", unavailable)
    with pytest.raises(RuntimeError, match="Numpy is not available"):
        data.main([])
    assert server.asked == [] and os.listdir() == ["data"]


@pytest.mark.parametrize("denied", ["file", "folder"])
def test_a_file_or_folder_that_may_not_be_read_is_named_and_nothing_is_downloaded(server, monkeypatch, capsys, denied):
    """(As root, permissions do not bind: so the functions that look at them are replaced.)"""
    server.use("whole")
    cifar10("data")
    server.asked.clear()
    capsys.readouterr()
    if denied == "file":
        def refuse(path, md5=None):
            raise PermissionError(13, "Permission denied", path)
        monkeypatch.setattr(data, "check_integrity", refuse)
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: not path.endswith("batches-py"))
    with pytest.raises(data.UserError, match="data.cifar-10-batches-py.* can't be used: Permission denied. Name another folder with --data-dir"):
        data.load()
    assert server.asked == [] and "damaged" not in capsys.readouterr().out


# ---- Damaged files -------------------------------------------------------------------------------

def damage(path):
    with open(path, "r+b") as file:
        file.write(b"damaged")


@pytest.fixture(params=["batches", "archive"])
def damaged(server, archive, request):
    """The path of a damaged file: a batch file whose archive is gone, or an archive with nothing unpacked."""
    server.use("whole")
    if request.param == "batches":
        cifar10("data")
        os.remove("data/cifar-10-python.tar.gz")
        path = os.path.join("data", "cifar-10-batches-py", "data_batch_3")
    else:
        path = os.path.join("data", "cifar-10-python.tar.gz")
        os.mkdir("data")
        with open(path, "wb") as file:
            file.write(archive)
    damage(path)
    server.asked.clear()
    return path


def test_a_damaged_file_is_named_before_anything_is_downloaded_and_then_downloaded_again(server, damaged, capsys):
    assert ten_and_fifty(cifar10("data"))
    printed = capsys.readouterr().out
    assert printed.index(f"{damaged} is missing or damaged: its MD5 is not the official one.") < printed.index("Downloading")
    assert set(server.asked) == {"whole"}


@pytest.mark.parametrize("dataset", ["auto", "cifar10"])
def test_a_damaged_file_that_no_address_sends_ends_with_its_name_and_never_with_stripes(server, few, damaged, dataset, capsys):
    server.use("404")
    with pytest.raises(data.UserError) as error:
        data.main(["--dataset", dataset])
    assert f"{damaged} is missing or damaged, and no address sends it" in str(error.value)
    assert "STRIPES" not in capsys.readouterr().out and os.path.exists(damaged)


# ---- With no network at all ------------------------------------------------------------------

def test_auto_falls_back_on_stripes_and_says_so_loudly_and_once(server, quick, capsys):
    server.use("404")
    assert data.load().name == data.load(train=False).name == "STRIPES (not CIFAR-10)"
    printed = capsys.readouterr().out
    assert "HTTP Error 404" in printed and "CIFAR-10 is not in" in printed and printed.count("NOT CIFAR-10") == 1


def test_a_test_set_follows_the_training_set_and_each_training_set_is_decided_anew(server, quick, capsys):
    """A training set of one kind never meets a test set of the other; files that came later are found, as in a notebook."""
    server.use("404")
    assert data.load().name == data.STRIPES
    server.use("whole")
    assert data.load(train=False).name == data.STRIPES and server.asked == ["404"]
    assert data.load(train=False, root="elsewhere").name == data.CIFAR      # alone, it decides for itself, each time
    server.use("404")
    assert data.load(train=False, root="third").name == data.STRIPES
    server.use("whole")
    assert data.load(train=False, root="third").name == data.CIFAR
    assert data.load().name == data.load(train=False).name == data.CIFAR    # the files are there now
    os.rename("data", "moved")
    server.use("404")
    capsys.readouterr()
    for _ in range(2):
        assert data.load().name == data.load(train=False).name == data.STRIPES
    assert capsys.readouterr().out.count("NOT CIFAR-10") == 2                # a banner for each training set


def test_asking_for_cifar10_never_gives_stripes(server, few, capsys):
    server.use("404")
    with pytest.raises(data.UserError, match="CIFAR-10 is not in.*--dataset stripes"):  # what is wrong, what to do
        data.main(["--dataset", "cifar10"])
    assert "STRIPES" not in capsys.readouterr().out


def test_asking_for_stripes_touches_no_network(server, quick):
    server.use("whole")
    assert data.load(dataset="stripes").name == data.STRIPES
    assert server.asked == [] and not os.path.exists("data")


def test_auto_is_cifar10_where_it_can_be_had(server):
    server.use("whole")
    assert data.load().name == data.CIFAR and data.load(False).classes == data.CLASSES


def test_the_files_are_read_for_their_md5_once_to_find_them_and_once_by_each_set(server, monkeypatch):
    server.use("whole")
    cifar10("data")
    hashed, check = [], data.check_integrity
    for module in (data, sys.modules["torchvision.datasets.cifar"]):
        monkeypatch.setattr(module, "check_integrity", lambda path, *args: hashed.append(path) or check(path, *args))
    data.FOUND.clear()
    assert len(data.load()) == 50 and len(data.load(False)) == 10
    batches = [path for path in hashed if "batch" in os.path.basename(path) and "meta" not in path]
    assert len(batches) == 3 * 6 and len(hashed) <= 3 * 7


def test_a_full_disk_is_not_taken_for_a_dead_network(server, few, monkeypatch):
    def disk_full(*args):
        raise OSError(28, "No space left on device")

    server.use("whole")
    monkeypatch.setattr(data, "download_url", disk_full)
    with pytest.raises(data.UserError, match="data can't be used: No space left on device"):
        data.main([])
    assert os.listdir("data") == []


def test_a_data_folder_that_cannot_be_made_is_named(archive):
    with open("data", "w"):
        pass
    with pytest.raises(data.UserError, match="data can't be used: File exists. Name another folder with --data-dir"):
        data.main([])
