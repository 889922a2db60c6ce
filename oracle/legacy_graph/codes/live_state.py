"""G1: state that a live port keeps where it should not, or loses."""

from __future__ import annotations

from oracle.legacy_graph.codes.code import Code

LIVE_STATE = (
    Code(
        "G101",
        "an encoder's state never reaches the decoder",
        "The encoder's final state is computed and used by nothing, and the decoder starts from zeros. "
        "In TF1 "
        "`initial_state` had to be handed over as well; a port loses it where the layer is built without "
        "`return_state`, where `initial_state` is left out, or where `get_initial_state` is not followed by "
        "`clone(cell_state=...)`. The loss still falls, since the decoder learns without the source.",
        "Give the encoder's state to the decoder: `initial_state=[h, c]`, or `clone(cell_state=[h, c])`.",
        (),
        "tf_models.legacy.live_state:dropped_state",
    ),
    Code(
        "G102",
        "attention memory that is set up outside the tape or in another function",
        "An attention mechanism of tfa keeps its memory as an attribute. If `setup_memory` runs while "
        "the model is "
        "made, or before the tape opens, the memory is a constant, so the encoder and the memory layer "
        "get no "
        "gradient. If it runs in one `tf.function` and the query in another, the tensor is out of scope.",
        "Call `setup_memory` in each step, in the tape's block and in the function that decodes.",
        (
            r"out of scope.*memory_layer|memory_layer.*out of scope",
            r"Cannot query the attention before the setup of memory",
        ),
        "tf_models.legacy.live_memory:other_function",
    ),
    Code(
        "G103",
        "stale attention memory: a batch is decoded with the memory of an earlier one",
        "`setup_memory` is called for the first batch only, as under `if not memory_initialized`, or a "
        "traced "
        "function took the memory of its first call for a constant. Later batches attend to the first, and "
        "nothing says so.",
        "Call `setup_memory` for every batch.",
        (),
        "tf_models.legacy.live_memory:stale",
    ),
    Code(
        "G104",
        "a sampler that cached an embedding",
        "The samplers of tfa that take an `embedding` make a function of the first one they see and "
        "keep it. If "
        "it is a tensor, as of `tf.convert_to_tensor` or a cast, all later calls look up the values of the "
        "first, and the embedding gets no gradient through them.",
        "Give the sampler an `embedding_fn` when it is made, such as the embedding layer; or make a "
        "sampler for "
        "each call.",
        (),
        "tf_models.legacy.live_memory:cached_embedding",
    ),
    Code(
        "G105",
        "a tensor that is kept from an earlier call",
        "A result that was computed from variables or from a batch is kept, as an attribute or in a "
        "closure, and "
        "used again later. It is a constant to the tape and does not follow the variables. In "
        "`tf.function` it "
        "is out of scope.",
        "Compute it in each call, or keep the variables that it is computed from.",
        (r"is out of scope and cannot be used here", r"defined in another function or code block"),
        "tf_models.legacy.live_state:kept_tensor",
    ),
    Code(
        "G106",
        "variables that are made anew by each call",
        "A layer or variable is made within the call, often in a loop over layers or steps. Each call "
        "draws new "
        "weights and forgets those that were trained. In `tf.function` it raises at the second call.",
        "Make layers and variables once, in the constructor.",
        (
            r"tf\.function only supports singleton tf\.Variables",
            r"tried to create variables on (a )?non-first call",
        ),
        "tf_models.legacy.live_state:new_variables",
    ),
)
