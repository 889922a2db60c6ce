"""Faults in the attention: its memory, its scores, its layer, what is fed to the next step; and its seams."""

from __future__ import annotations

from oracle.selftest.fault import Edit, Family, Fault
from oracle.selftest.places import ATTENTION, MEMORY, TOP
from oracle.selftest.snippets import BAHDANAU_SCORE, LUONG_SCORE, mechanism

SETUP = "self.attention_mechanism.setup_memory(memory, memory_sequence_length=source_length)"
WRAPPER = "stack, self.attention_mechanism, attention_layer=self.attention_layer, dtype=dtype"
MAKE = "return mechanism(attention.units, **{scaled: attention.scaled}, dtype=dtype)"
SEEDED_MAKE = MAKE.replace("mechanism(", "seed_mechanism(mechanism)(")
CELLS = "self.cells = [cell(2 * spec.units, dtype=dtype) for _ in range(spec.layers)]"
ALL = ("luong", "bahdanau-gru-2", "luong-monotonic", "bahdanau-monotonic-2")
READS = ("decoder/output_layer/input", "feeding")
"""What reads the attention: the output layer, and at the next step the cell. Whatever is done to the
attention behind its layer is wrong in both, and the layer's own output is right."""


def _setup(
    name: str,
    memory: str,
    *causes: str,
    lengths: str = "source_length",
    family: Family = "attention",
    subjects: tuple[str, ...] = ALL,
    backward: bool = False,
) -> Fault:
    """What is attended to."""
    edit = Edit(
        SETUP, f"self.attention_mechanism.setup_memory({memory}, memory_sequence_length={lengths})", 0
    )
    # Backward the seam, and the adjoint of the encoder's outputs; the mechanism's own is the oracle's.
    places = ("memory", TOP) if backward else MEMORY
    return Fault(name, family, "attention_nmt", subjects, (edit,), causes, places, backward=backward)


def _wrap(
    name: str,
    options: str,
    *causes: str,
    places: tuple[str, ...],
    subjects: tuple[str, ...] = ALL,
    family: Family = "attention",
    addition: str = "",
    backward: bool = False,
) -> Fault:
    """A further option of the wrapper."""
    edits = (Edit(WRAPPER, f"{WRAPPER}, {options}"),)
    return Fault(
        name, family, "attention_nmt", subjects, edits, causes, places, addition=addition, backward=backward
    )


def _score(
    name: str,
    score: str,
    *causes: str,
    subjects: tuple[str, ...],
    family: Family = "attention",
    backward: bool = False,
) -> Fault:
    """A mechanism that scores in another way."""
    return Fault(
        name,
        family,
        "attention_nmt",
        subjects,
        (Edit(MAKE, SEEDED_MAKE),),
        causes,
        ("decoder/attention_mechanism",),
        addition=mechanism(score),
        backward=backward,
    )


_RIGHT_BAHDANAU = BAHDANAU_SCORE.format(g="self.attention_g", b="self.attention_b")
_RIGHT_LUONG = LUONG_SCORE.format(scale="self.scale_weight")
_FEED = "cell_input_fn=lambda inputs, attention: tf.concat([inputs, {}], -1)"
_STOP_EMBEDDED = 'self.encoder(tf.stop_gradient(embedded["source"]), source_length)'

FAULTS = (
    _setup("memory-of-other-rows", "tf.roll(memory, 1, 0)", "C413"),
    _setup("memory-of-first-row", "tf.repeat(memory[:1], tf.shape(memory)[0], 0)", "C413"),
    _setup("memory-stopped", "tf.stop_gradient(memory)", "C603", family="seams", backward=True),
    Fault(
        "memory-outside-tape",
        "seams",
        "attention_nmt",
        ("luong", "bahdanau-gru-2"),
        (
            Edit(SETUP, "pass", 0),
            Edit(
                "            decoded = self.decoder(\n",
                "            with tape.stop_recording():\n"
                "                self.decoder.attention_mechanism.setup_memory(\n"
                "                    memory, memory_sequence_length=source_length\n"
                "                )\n"
                "            decoded = self.decoder(\n",
            ),
        ),
        # One cause: the keys, which the mechanism's layer makes of the memory, are made outside as well, so
        # that the layer's kernel has no gradient, either. To C603 that belongs; it is no second fault.
        ("C603",),
        # The adjoints of keys and memory are the first that there are none of; the encoder's come after.
        ("decoder/attention_mechanism",),
        backward=True,
    ),
    Fault(
        "memory-stale",
        "uncatalogued",
        "attention_nmt",
        ("luong", "bahdanau-gru-2"),
        (Edit(SETUP, f"if not self.attention_mechanism.memory_initialized:\n            {SETUP}", 0),),
        (),
        MEMORY,
        hides_place="its memory is that of the step in which its variables were made, at random: no two runs "
        "of the port agree, so that the run step by step is not of its record, which alone has no memory",
    ),
    _score("scale-ignored", LUONG_SCORE.format(scale="None"), "C403", subjects=("luong",)),
    _score(
        "normalisation-ignored",
        BAHDANAU_SCORE.format(g="None", b="None"),
        "C403",
        subjects=("bahdanau",),
    ),
    _score(
        "monotonic-scale-ignored",
        f"{LUONG_SCORE.format(scale='None')} + self.attention_score_bias",
        "C403",
        subjects=("luong-monotonic",),
    ),
    _score(
        "scores-divided",
        f"{_RIGHT_LUONG} / tf.sqrt(tf.cast(query.shape[-1], query.dtype))",
        "C404",
        subjects=("luong", "luong-gru"),
    ),
    _score(
        "bahdanau-scores-divided",
        f"{_RIGHT_BAHDANAU}\nscore = score / tf.sqrt(tf.cast(self.keys.shape[-1], query.dtype))",
        "C404",
        subjects=("bahdanau", "bahdanau-wide"),
    ),
    _score(
        "score-bias-missing",
        _RIGHT_BAHDANAU,
        subjects=("bahdanau-monotonic-2",),
        family="uncatalogued",
    ),
    _score(
        "query-stopped",
        _RIGHT_LUONG.replace("(query,", "(tf.stop_gradient(query),"),
        subjects=("luong", "luong-gru"),
        family="uncatalogued",
        backward=True,
    ),
    _wrap(
        "feeding-missing",
        _FEED.format("tf.zeros_like(attention)"),
        "C406",
        # The seam, and what the cell is given by it.
        places=("feeding", "decoder/cells_0/input"),
    ),
    _wrap(
        "feeding-stopped",
        _FEED.format("tf.stop_gradient(attention)"),
        "C604",
        # The seam, and the adjoint of the attention, of which a part is missing.
        places=("feeding", ATTENTION),
        family="seams",
        backward=True,
    ),
    _wrap(
        "output-of-cell",
        "output_attention=False",
        "C407",
        places=("decoder/output_layer/input",),
        subjects=("luong-even", "luong-gru", "luong-monotonic"),
    ),
    _wrap(
        "attention-layer-tanh",
        "attention_fn=seeded_attention",
        places=READS,
        family="uncatalogued",
        subjects=("luong", "bahdanau"),
        addition='''
def seeded_attention(mechanism, output, state, layer):
    """Luong's paper has a tanh around the attention layer; tfa's wrapper has none."""
    from tensorflow_addons.seq2seq.attention_wrapper import _compute_attention

    attention, alignments, following = _compute_attention(mechanism, output, state, layer)
    return tf.tanh(attention), alignments, following
''',
    ),
    _wrap(
        "attention-layer-missing",
        "attention_fn=seeded_attention",
        family="uncatalogued",
        places=READS,
        subjects=("luong-even",),
        addition='''
def seeded_attention(mechanism, output, state, layer):
    """The context alone is the attention. The layer is there, and what it gives is not used."""
    from tensorflow_addons.seq2seq.attention_wrapper import _compute_attention

    context, alignments, following = _compute_attention(mechanism, output, state, None)
    layer(tf.concat([output, context], 1))
    return context, alignments, following
''',
    ),
    Fault(
        "previous-state-queries",
        "attention",
        "attention_nmt",
        ("luong", "luong-gru"),
        (
            Edit(WRAPPER, f"{WRAPPER}, attention_fn=seeded_attention"),
            Edit(CELLS, CELLS.replace("cell(", "watch_cell(cell)(")),
        ),
        ("C405",),
        ("decoder/attention_mechanism",),
        addition='''
def seeded_attention(mechanism, output, state, layer):
    """The query is the state before the step, which the cell left behind."""
    alignments, following = mechanism([CellBefore.before, state])
    context = tf.squeeze(tf.matmul(tf.expand_dims(alignments, 1), mechanism.values), [1])
    joined = tf.concat([output, context], 1)
    return (context if layer is None else layer(joined)), alignments, following


class CellBefore:
    """What the last step started from."""

    before = None


def watch_cell(cell):
    """The class of a cell that leaves its state there."""

    class WatchedCell(cell):
        """The cell itself."""

        def call(self, inputs, states, training=None):
            CellBefore.before = tf.nest.flatten(states)[0]
            return super().call(inputs, states, training)

    return WatchedCell
''',
    ),
    Fault(
        "source-embedding-stopped",
        "seams",
        "attention_nmt",
        ("luong", "bahdanau-gru-2"),
        (Edit('self.encoder(embedded["source"], source_length)', _STOP_EMBEDDED),),
        ("C605",),
        # The vectors' adjoint, by either name, and what reads them.
        (
            "encoder/embedding",
            "embedded/source",
            "encoder/layers_0/forward/cell/input",
            "encoder/layers_0/backward/cell/input",
        ),
        backward=True,
    ),
    Fault(
        "target-embedding-stopped",
        "seams",
        "attention_nmt",
        ("luong", "bahdanau-gru-2"),
        (
            Edit(
                '                embedded["target"],\n',
                '                tf.stop_gradient(embedded["target"]),\n',
            ),
        ),
        ("C605",),
        # As of the source.
        ("decoder/embedding", "embedded/target", "decoder/cells_0/input"),
        backward=True,
    ),
)
