"""Getting CIFAR-10: the ways it can go wrong, on a server on this machine, with a tiny archive."""
import argparse
import hashlib
import http.server
import io
import os
import pickle
import socket
import tarfile
import threading

import numpy
import pytest
import torch

import data
from data import CIFAR10


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def archive(monkeypatch, tmp_path):
    """The bytes of an archive like CIFAR-10's, of 10 images a file; torchvision gets its MD5s."""
    monkeypatch.chdir(tmp_path)
    files = {"batches.meta": pickle.dumps({"label_names": list(data.CLASSES)})}
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        numbers = numpy.random.default_rng(len(files)).integers(0, 256, (10, 3072), numpy.uint8)
        files[name] = pickle.dumps({"data": numbers, "labels": list(range(10))})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    for name in ("train_list", "test_list"):
        sums = [[file, md5(files[file])] for file, _ in getattr(CIFAR10, name)]
        monkeypatch.setattr(CIFAR10, name, sums)
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(files["batches.meta"])})
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(buffer.getvalue()))
    monkeypatch.setattr(data, "TIMEOUT", 0.3)
    return buffer.getvalue()


@pytest.fixture
def server(archive, monkeypatch):
    """A server that does what the path says: /whole, /404, /html, /short, /silent or /no-http.

    server.use(paths) makes these the only addresses; server.asked lists what was asked for.
    """
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            what = self.path.strip("/")
            httpd.asked.append(what)
            if what == "404":
                return self.send_error(404)
            if what == "silent":
                return release.wait(10)
            if what == "no-http":
                return self.wfile.write(b"hello\r\n")
            body = b"<html>Please log in to the Wi-Fi</html>" if what == "html" else archive
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:len(body) // 2] if what == "short" else body)
        log_message = lambda *args: None

    monkeypatch.setenv("no_proxy", "*")
    release = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads, httpd.asked = True, []
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        httpd.url = f"http://127.0.0.1:{httpd.server_port}"
        httpd.use = lambda *paths: monkeypatch.setattr(
            data, "MIRRORS", [f"{httpd.url}/{path}" for path in paths])
        yield httpd
        release.set()
        httpd.shutdown()
        thread.join()


@pytest.fixture
def there(server, capsys):
    """The server; CIFAR-10 is in data/, whole, without its archive. From now on there is none."""
    server.use("whole")
    data.download("data")
    os.remove("data/cifar-10-python.tar.gz")
    server.use("404")
    server.asked.clear()
    capsys.readouterr()
    return server


def is_loaded(root="data"):
    trainset, testset = (data.load(train_set, "cifar10", root) for train_set in (True, False))
    return (len(trainset), len(testset)) == (50, 10)


def find(dataset, data_dir="data"):
    return data.find_dataset(argparse.Namespace(dataset=dataset, data_dir=data_dir))


def test_a_whole_archive_is_downloaded_and_its_images_are_those_of_the_tutorials_lines(server):
    server.use("whole")
    trainset, testset = data.load(), data.load(False)  # CIFAR-10 in data/ is the default
    for train_set, ours in ((True, trainset), (False, testset)):
        theirs = CIFAR10("data", train=train_set, transform=data.transform)
        assert len(ours) == len(theirs) and (ours.name, ours.classes) == ("CIFAR-10", data.CLASSES)
        for (image, label), (their_image, their_label) in zip(ours, theirs):
            assert torch.equal(image, their_image) and label == their_label


@pytest.mark.parametrize("path, why", [
    ("404", "HTTPError: HTTP Error 404"), ("html", "RuntimeError: File not found or corrupted"),
    ("short", "corrupted"), ("silent", "timed out"), ("no-http", "BadStatusLine: hello")])
def test_what_one_address_does_wrong_is_said_and_the_next_one_is_tried(server, capsys, path, why):
    server.use(path, "whole")
    assert is_loaded()
    printed = capsys.readouterr().out
    first, second = (f"CIFAR-10 (170 MB, unless the archive is there) from {server.url}/{each}\n"
                     for each in (path, "whole"))
    assert printed.startswith(f"CIFAR-10 is not in {os.path.abspath('data')}, whole.\n{first}")
    assert printed.index("\n  failed: ") < printed.index(why) < printed.index(second)


def test_the_official_host_comes_last():
    assert len(data.MIRRORS) == 3 and data.MIRRORS[-1] == CIFAR10.url


def test_the_time_limit_is_for_the_download_only(monkeypatch):
    with data.time_limit():
        monkeypatch.setattr(data, "TIMEOUT", 7)
        with pytest.raises(ValueError), data.time_limit():
            assert socket.getdefaulttimeout() == 7
            raise ValueError
        assert socket.getdefaulttimeout() == 20
    assert socket.getdefaulttimeout() is None


def test_what_is_there_and_whole_is_used_without_a_word_and_without_the_network(there, capsys):
    assert find("auto") == "cifar10" and is_loaded()
    assert there.asked == [] and capsys.readouterr().out == ""


def test_the_folder_of_the_batches_itself_is_recognised_and_a_home_folder(there, monkeypatch):
    """People who have the files name the folder cifar-10-batches-py, one level too deep."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", os.getcwd()))
    for root in ("data/cifar-10-batches-py", "data/cifar-10-batches-py/", "~/data"):
        assert data.download(root) == os.path.abspath("data") and is_loaded(root)
    assert there.asked == []


@pytest.mark.parametrize("damage, name", [
    ("cut short", "data_batch_3"), ("cut short", "test_batch"), ("cut short", "batches.meta"),
    ("missing", "data_batch_3"), ("missing", "")])  # "": all of them
def test_with_the_archive_there_nothing_is_downloaded(there, archive, damage, name):
    path = f"data/cifar-10-batches-py/{name}"
    os.truncate(path, 10) if damage == "cut short" else os.rename(path, "elsewhere")
    with open("data/cifar-10-python.tar.gz", "wb") as file:
        file.write(archive)
    assert find("auto") == "cifar10" and is_loaded() and there.asked == []


BANNER = ("\n*** STRIPES: a synthetic dataset, drawn by data.py. NOT CIFAR-10: ***\n"
          "*** no result below says anything about CIFAR-10.                ***\n\n")


@pytest.mark.parametrize("dataset, damage", [
    ("auto", "a damaged file"), ("cifar10", "a damaged file"), ("cifar10", "no file")])
def test_it_ends_with_a_sentence_and_never_with_stripes_unasked(there, capsys, dataset, damage):
    os.truncate("data/cifar-10-batches-py/data_batch_3", 10)
    os.rename("data", "mine")
    root = os.path.abspath("mine" if damage == "a damaged file" else "elsewhere")
    with pytest.raises(data.UserError) as error:
        data.main(["--dataset", dataset, "--data-dir", root])
    assert str(error.value) == (
        "CIFAR-10 can't be had (see above). Try again later, put cifar-10-python.tar.gz into "
        f"{root}, name another folder with --data-dir, or use --dataset stripes.")
    assert "STRIPES" not in capsys.readouterr().out and there.asked


@pytest.mark.parametrize("named", ["data/cifar-10-batches-py", "data/cifar-10-batches-py/", "~/data"])
def test_a_damaged_file_is_no_reason_for_stripes_however_the_folder_is_named(
        there, monkeypatch, named):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", os.getcwd()))
    os.truncate("data/cifar-10-batches-py/data_batch_3", 10)
    assert find("auto", named) == "cifar10" and there.asked == []  # load() then ends with an error


def test_auto_falls_back_on_stripes_if_there_is_no_file_and_no_address_sends_it(server, capsys):
    server.use("404", "html")
    assert find("auto", "elsewhere") == "stripes"
    printed = capsys.readouterr().out
    assert "\nCIFAR-10 can't be had (see above). Try " in printed and printed.endswith(BANNER)
    server.use("whole")
    assert find("auto", "elsewhere") == "cifar10" and is_loaded("elsewhere")
    assert os.listdir() == ["elsewhere"]


def test_the_other_datasets_ask_nobody_for_cifar10(server, capsys):
    server.use("whole")
    assert [find(word) for word in ("mnist", "fashion")] == ["mnist", "fashion"]
    assert capsys.readouterr().out == ""
    assert find("stripes") == "stripes" and capsys.readouterr().out == BANNER
    assert len(data.load(False, "stripes")) == 2000 and server.asked == os.listdir() == []
