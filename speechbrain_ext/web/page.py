"""The page: two tabs, and the server that shows them to this machine only.

Recordings and, unless a folder is given, enrolled speakers are kept in a temporary
folder that its owner alone can read. Gradio serves no other file: nothing is added to
the paths that it may read, and of a visitor it takes uploaded files only.
"""

import functools
import html
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from speechbrain_ext.inference.gallery import Gallery
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.web.answers import Answers

TITLE = "Who speaks?"
LOCALHOST = "127.0.0.1"
MAX_SIZE = 20.0  # megabytes of an upload
MAX_DURATION = 60.0  # seconds of a recording
# Seconds: how often uploads are looked at, and the age at which they are deleted
DELETE_CACHE = (600, 3600)
# A visitor's own gallery goes when the tab is closed, or after so many seconds.
GALLERY_LIFE = 3600
PRIVACY = (
    "Embeddings of voices are biometric data: enrol whom you may, delete on request."
)
CANDIDATES = ["speaker", "score", "decision", "probability"]


def require_gradio():
    """Sees whether Gradio is there, without importing it.

    Raises
    ------
    InputError
        If it is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise InputError("the page needs a package: pip install 'speechbrain_ext[web]'")


def build_page(model, galleries, max_duration=MAX_DURATION):
    """Lays the page out.

    Arguments
    ---------
    model : SpeakerRecognition
        The model.
    galleries : VisitorGalleries or SharedGallery
        Who is enrolled.
    max_duration : float
        Seconds that a recording may have.

    Returns
    -------
    gradio.Blocks
        The page, to be launched.
    """
    require_gradio()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    answers = Answers(model, max_duration)

    def recording(label):
        return gr.Audio(
            label=label, sources=["upload", "microphone"], type="filepath", buttons=[]
        )

    def answer(function):
        """Shows bad input as one line on the page."""

        @functools.wraps(function)
        def shown(*arguments):
            try:
                return function(*arguments)
            except InputError as error:
                # What is shown is HTML, and file names are anybody's.
                message = html.escape(str(error), quote=False)
                raise gr.Error(message, print_exception=False) from error

        return shown

    def listed(gallery):
        """Rows and choices of who is enrolled."""
        speakers = gallery.speakers()
        rows = [[name, len(recordings)] for name, recordings in speakers.items()]
        return rows, gr.Dropdown(choices=list(speakers), value=None)

    @answer
    def on_load(gallery):
        gallery = gallery or galleries.open()
        return gallery, *listed(gallery)

    @answer
    def on_enrol(gallery, name, path):
        gallery = gallery or galleries.open()
        answers.enrol(gallery, name, path)
        return gallery, *listed(gallery), None

    @answer
    def on_delete(gallery, name):
        if gallery is None or not name:
            raise InputError("Choose the speaker to delete.")
        gallery.delete(name)
        return listed(gallery)

    @answer
    def on_identify(gallery, path):
        return answers.identify(gallery or galleries.open(), path)

    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=DELETE_CACHE
    ) as page:
        gr.Markdown(f"# {TITLE}")
        gr.Markdown(f"Recordings of at most {max_duration:g} s. {PRIVACY}")
        with gr.Tab("Verify"):
            with gr.Row():
                first, second = (
                    recording("First recording"),
                    recording("Second recording"),
                )
            compare = gr.Button("Compare", variant="primary")
            verdict = gr.Markdown(container=True)
            with gr.Row():
                figures = [gr.Plot(show_label=False) for _ in range(2)]
        with gr.Tab("Enrol and identify"):
            gallery = gr.State(
                time_to_live=GALLERY_LIFE, delete_callback=galleries.forget
            )
            with gr.Row():
                with gr.Column():
                    name = gr.Textbox(label="Name of the speaker", max_lines=1)
                    enrolment = recording("Recording to enrol")
                    enrol = gr.Button("Enrol", variant="primary")
                with gr.Column():
                    enrolled = gr.Dataframe(
                        label="Enrolled", headers=["speaker", "recordings"],
                        type="array", interactive=False,
                    )  # fmt: skip
                    leaving = gr.Dropdown(label="Speaker to delete", choices=[])
                    delete = gr.Button("Delete")
            unknown = recording("Recording to identify")
            identify = gr.Button("Identify", variant="primary")
            found = gr.Markdown(container=True)
            candidates = gr.Dataframe(
                label="Candidates", headers=CANDIDATES, type="array", interactive=False
            )
        shown = [enrolled, leaving]
        for event, function, inputs, outputs in (
            (page.load, on_load, [gallery], [gallery, *shown]),
            (compare.click, answer(answers.verify), [first, second],
             [verdict, *figures]),
            (enrol.click, on_enrol, [gallery, name, enrolment],
             [gallery, *shown, enrolment]),
            (delete.click, on_delete, [gallery, leaving], shown),
            (identify.click, on_identify, [gallery, unknown], [found, candidates]),
        ):  # fmt: skip
            event(function, inputs, outputs, api_visibility="private")
    return page


class VisitorGalleries:
    """Opens an own, passing gallery for each visitor of the page.

    Arguments
    ---------
    root : str or Path
        Folder for them.

    Example
    -------
    >>> galleries = VisitorGalleries(getfixture("tmpdir"))
    >>> first, second = galleries.open(), galleries.open()
    >>> first.folder == second.folder
    False
    >>> galleries.forget(first)
    >>> first.folder.exists(), second.folder.exists()
    (False, True)
    """

    def __init__(self, root):
        self.root = Path(root)

    def open(self):
        """Opens the gallery of a new visitor.

        Returns
        -------
        Gallery
            An empty one.
        """
        return Gallery(tempfile.mkdtemp(dir=self.root))

    def forget(self, gallery):
        """Deletes the gallery of a visitor who has left.

        Arguments
        ---------
        gallery : Gallery
            One that this object opened, or None.
        """
        if gallery is not None:
            shutil.rmtree(gallery.folder, ignore_errors=True)


class SharedGallery:
    """Opens the same, lasting gallery for all visitors of the page.

    Arguments
    ---------
    folder : str or Path
        Folder of the gallery.

    Raises
    ------
    InputError
        If the folder is no gallery.

    Example
    -------
    >>> SharedGallery(getfixture("tmpdir") / "gallery").open().speakers()
    {}
    """

    def __init__(self, folder):
        self.gallery = Gallery(folder)

    def open(self):
        """Opens the gallery.

        Returns
        -------
        Gallery
            That of all visitors.
        """
        return self.gallery

    def forget(self, gallery):
        """Leaves the gallery as it is."""


def serve(
    model,
    gallery=None,
    server_name=LOCALHOST,
    port=None,
    max_size=MAX_SIZE,
    max_duration=MAX_DURATION,
):
    """Shows the page until the program is interrupted.

    Arguments
    ---------
    model : SpeakerRecognition
        The model.
    gallery : str or Path
        Folder of enrolled speakers that all visitors share; if None, each visitor has
        an own gallery, which is deleted after the visit.
    server_name : str
        Address to listen at; if None, what the environment of a Hugging Face Space
        says.
    port : int
        Port; the first free one from 7860 if None.
    max_size : float
        Megabytes that an uploaded file may have.
    max_duration : float
        Seconds that a recording may have.

    Raises
    ------
    InputError
        If Gradio is not installed, the port is taken, or the gallery is none.
    """
    with tempfile.TemporaryDirectory(prefix="speechbrain_ext-") as folder:
        # Where Gradio keeps uploads; read when it is imported, too
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder, "uploads"))
        galleries = VisitorGalleries(folder)
        if gallery is not None:
            galleries = SharedGallery(gallery)
        page = build_page(model, galleries, max_duration)
        launch(page, server_name, port, max_size)


def launch(page, server_name=LOCALHOST, port=None, max_size=MAX_SIZE, **settings):
    """Starts the server of the page, closed to all but what the page needs.

    Arguments
    ---------
    page : gradio.Blocks
        As of `build_page`.
    server_name : str
        As of `serve`.
    port : int
        As of `serve`.
    max_size : float
        As of `serve`.
    **settings
        Further arguments of `gradio.Blocks.launch`.

    Returns
    -------
    tuple
        As of `gradio.Blocks.launch`.

    Raises
    ------
    InputError
        If the port is taken.
    """
    try:
        return page.launch(
            server_name=server_name,
            server_port=port,
            share=False,
            allowed_paths=[],
            max_file_size=round(max_size * 1e6),
            footer_links=[],
            run_history=False,  # it would keep recordings in the browser
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            **settings,
        )
    except OSError as error:
        reason = error if port is None else f"port {port} is taken; give another one"
        raise InputError(f"the page cannot be served: {reason}") from error
