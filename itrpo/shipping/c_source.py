"""A policy as C99: a header and a source file, with no dependency but the C library, without allocation, in float32.

It does what `policy.step` does, one observation at a time. Nothing of a file's texts becomes code: names of columns are
escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from itrpo.policy import ALIKE, BITS, MOVED, ON_OBSERVATION, Policy, column_name, measurable

WIDTH = 8  # numbers per line


class Source(NamedTuple):
    header: str
    source: str


def to_c(policy: Policy, about: Mapping[str, Any], name: str) -> Source:
    """NAME.h and NAME.c. `name`, an identifier, begins every name in them that others see."""
    parts = list(_functions(policy, name))
    buffers = [it.partition("//")[2] for it in parts if it.startswith("//")]
    code = [it for it in parts if not it.startswith("//")]
    used = [text for function, text in HELPERS.items() if any(f"{function}(" in it for it in code)]
    source = "\n".join([SOURCE_TOP.format(name=name), *used, *code])
    return Source(_header(policy, about, name, buffers), source)


# --- the header ------------------------------------------------------------------------------------------------------

HELP = {
    "constant": "a column that never varied in training did: its value in training is used",
    "missing": "a number is NaN or infinite",
    "range": "a number is beyond the range of training",
    "bounds": "the policy's action was outside of its bounds",
    "rate": "an action would change by more than its limit",
    "instead": "the observation is missing",
}


def _header(policy: Policy, about: Mapping[str, Any], name: str, buffers: list[str]) -> str:
    guards, upper = policy.guards, name.upper()
    texts = [f"{key}: {comment(json.dumps(value))}" for key, value in about.items() if key not in LONG]
    columns: list[str] = []
    for of, size in (("observation", policy.frame), ("action", len(policy.action_low))):
        columns += ["", f"{of}s:"]
        for i in range(size):
            columns.append(f"  [{i}] {comment(_column(policy, of, i))}".rstrip())
    lines = "\n".join(
        f" * {line}".rstrip() for line in ["A policy of itrpo, written by `itrpo export`.", "", *texts, *columns]
    )
    members = [f"float state[{max(policy.memory, 1)}]; /* what it remembers: zeros where nothing */", *buffers]
    bits, what = "", "0"
    if guards is not None:
        each = [f"    {upper}_{bit.upper()} = {value}, /* {HELP[bit]} */" for bit, value in BITS.items()]
        bits = "\n".join(["", "enum { /* what guards did */", *each, f"    {upper}_NOTHING = 0", "};", ""])
        members += [
            f"unsigned char on_observation[{upper}_OBSERVATION]; /* bits of the last call, by column */",
            f"unsigned char on_action[{upper}_ACTION];",
        ]
        members += [
            f"uint32_t {bit}[{upper}_{'OBSERVATION' if bit in ON_OBSERVATION else 'ACTION'}];"
            + (" /* how often each guard acted, by column */" if bit == "constant" else "")
            for bit in BITS
        ]
        missing = {
            "error": f"with {upper}_MISSING nothing else happened: `action` is as it was",
            "hold": f"with {upper}_MISSING `action` is the one before, at first the fallback",
            "fallback": f"with {upper}_MISSING `action` is the fallback",
        }
        what = f"what guards did, as bits of all columns together; {missing[guards.missing]}"
    return HEADER.format(
        lines=lines,
        name=name,
        upper=upper,
        observation=policy.frame,
        action=len(policy.action_low),
        state=policy.memory,
        guarded=int(guards is not None),
        bits=bits,
        members="\n".join(f"    {it}" for it in members),
        what=what,
        include="#include <stdint.h>\n\n" if guards is not None else "",
    )


# of what a file says of itself, what the header has in another place
LONG = ("observation_mean", "observation_std", "observation_names", "observation_units", "observation_low",
        "observation_high", "action_names", "action_units", "action_low", "action_high", "trained_low", "trained_high",
        "guards", "bits")  # fmt: skip


def _column(policy: Policy, of: str, i: int) -> str:
    """valve [%], from 0 to 1, per step at most 0.1"""
    named, unit = (column_name(policy.metadata, of, i, kind) for kind in ("names", "units"))
    parts = [" ".join([*([named] if named else []), *([f"[{unit}]"] if unit else [])])]
    guards = policy.guards
    if of == "action":
        low, high = (
            (policy.action_low, policy.action_high) if guards is None else (guards.action_low, guards.action_high)
        )
        parts.append(f"{'a whole number, ' if policy.num_actions else ''}from {low[i]:.6g} to {high[i]:.6g}")
        if guards is not None and np.isfinite(guards.rate[i]):
            parts.append(f"at most {guards.rate[i]:.6g} per step")
        if guards is not None and guards.missing != "error":
            parts.append(f"fallback {guards.fallback[i]:.6g}")
    elif guards is not None and np.isfinite(guards.constant[i]):
        parts.append(f"always {guards.constant[i]:.6g} in training")
    elif guards is not None and np.isfinite([guards.low[i], guards.high[i]]).all():
        parts.append(f"{guards.low[i]:.6g} to {guards.high[i]:.6g} in training{', clamped' if guards.clamp else ''}")
    return ", ".join(it for it in parts if it)


def comment(text: str) -> str:
    """A text that stays inside of a comment: printable ASCII, without its end, one line, not too long."""
    plain = "".join(it if " " <= it <= "~" and it != "\\" else "?" for it in text)
    plain = plain.replace("*/", "* /").replace("/*", "/ *").replace("??/", "?")
    return plain if len(plain) <= 200 else plain[:197] + "..."


HEADER = """/*
{lines}
 */
#ifndef {upper}_H
#define {upper}_H

{include}#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_OBSERVATION {observation}
#define {upper}_ACTION {action}
#define {upper}_STATE {state}
#define {upper}_GUARDED {guarded}
{bits}
/* One episode, or one plant. It holds no pointer; a struct of zeros is one that {name}_init made. */
struct {name} {{
{members}
}};

void {name}_init(struct {name} *self);

/* An episode begins: forgets what was seen and done. `action` [{upper}_ACTION] is the one in force now, from which
 * limits of the rate count and which is held where an observation is missing; NULL: there is none. Counts stay. */
void {name}_reset(struct {name} *self, const float *action);

/* From observation [{upper}_OBSERVATION] to action [{upper}_ACTION], in the units of the data.
 * Returns {what}. */
unsigned {name}_act(struct {name} *self, const float *observation, float *action);

#ifdef __cplusplus
}}
#endif

#endif
"""

# --- the source ------------------------------------------------------------------------------------------------------

SOURCE_TOP = """#include "{name}.h"

#include <math.h>
#include <stdint.h>
#include <string.h>
"""
HELPERS = {
    "is_finite": """static int is_finite(float x) /* by its bits: true to NaN with any flag of the compiler */
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7f800000u) != 0x7f800000u;
}
""",
    "clip": """static float clip(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}
""",
    "copy": """static void copy(const float *from, int size, float *to)
{
    memcpy(to, from, (size_t)size * sizeof(float));
}
""",
    "add_product": """/* output [outputs] += input [inputs] times weight [inputs][outputs] */
static void add_product(const float *restrict weight, const float *restrict input, int inputs, int outputs,
                        float *restrict output)
{
    const size_t width = (size_t)outputs;
    const int fours = inputs - inputs % 4;
    for (int i = 0; i < fours; i += 4) { /* four rows at once: output is read and written a quarter as often */
        const float *restrict w = weight + (size_t)i * width;
        const float a = input[i], b = input[i + 1], c = input[i + 2], d = input[i + 3];
        for (int o = 0; o < outputs; o++)
            output[o] += (a * w[o] + b * w[o + outputs]) + (c * w[o + 2 * outputs] + d * w[o + 3 * outputs]);
    }
    for (int i = fours; i < inputs; i++)
        for (int o = 0; o < outputs; o++)
            output[o] += input[i] * weight[(size_t)i * width + (size_t)o];
}
""",
    "standardise": """static void standardise(float *x, int size, float epsilon)
{
    float mean = 0.0f, square = 0.0f;
    for (int i = 0; i < size; i++)
        mean += x[i];
    mean /= (float)size;
    for (int i = 0; i < size; i++) {
        x[i] -= mean;
        square += x[i] * x[i];
    }
    square = sqrtf(square / (float)size + epsilon);
    for (int i = 0; i < size; i++)
        x[i] /= square;
}
""",
    "relu": """static void relu(float *x, int size)
{
    for (int i = 0; i < size; i++)
        x[i] = x[i] < 0.0f ? 0.0f : x[i];
}
""",
}


def _functions(policy: Policy, name: str) -> Iterator[str]:
    """Definitions in their order; those that begin with // are members of the struct."""
    rows, actions = len(policy.observation_mean), len(policy.action_low)
    widths = [len(bias) for layers in policy.networks.values() for _, bias in layers]
    yield f"//float work[2][{max(widths)}]; /* the rest is scratch */"
    yield f"//float input[{rows}];"
    for prefix in policy.networks:
        joined = policy.kind == "best_of_decoder" or (prefix != "" and policy.num_actions is None)
        if joined:
            yield f"//float {prefix or 'network_'}first[{len(policy.networks[prefix][0][1])}];"
        yield from _network(policy, prefix, name, rows if joined else 0)
    for constant in ("latents", "noise"):
        if constant in policy.constants:
            yield array(constant, policy.constants[constant])
    if "perturbation_" in policy.networks:
        phi = literal(policy.constants["phi"])
        yield f"""static void perturb(struct {name} *self, float *action)
{{
    float moved[{actions}];
    perturbation_network(self, action, moved);
    for (int i = 0; i < {actions}; i++)
        action[i] = clip(action[i] + {phi} * tanhf(moved[i]), -1.0f, 1.0f);
}}
"""
    yield f"/* {policy.kind} */\nstatic void act(struct {name} *self, float *action)\n{{\n{_rule(policy)}}}\n"
    yield _act(policy, name)


def _network(policy: Policy, prefix: str, name: str, row: int) -> Iterator[str]:
    """A network's arrays and function. With `row` > 0 PREFIX_row computes once what the first layer makes of a row."""
    layers, called = policy.networks[prefix], prefix or "network_"
    body = ""
    for i, (weight, bias) in enumerate(layers):
        yield array(f"{called}weight_{i}", weight.T)
        yield array(f"{called}bias_{i}", bias)
        source, inputs, start = (
            ("input" if i == 0 else f"self->work[{(i - 1) % 2}]"),
            weight.shape[1],
            f"{called}bias_{i}",
        )
        target = "output" if i == len(layers) - 1 else f"self->work[{i % 2}]"
        offset = ""
        if i == 0 and row:
            start, inputs, offset = f"self->{called}first", inputs - row, f" + {row * len(bias)}"
        body += f"    copy({start}, {len(bias)}, {target});\n"
        body += f"    add_product({called}weight_{i}{offset}, {source}, {inputs}, {len(bias)}, {target});\n"
        if i < len(layers) - 1:
            body += f"    relu({target}, {len(bias)});\n"
            if "epsilon" in policy.constants and prefix != "behavior_":
                body += f"    standardise({target}, {len(bias)}, {literal(policy.constants['epsilon'])});\n"
    if row:
        size = len(layers[0][1])
        yield f"""static void {called}row(struct {name} *self)
{{
    copy({called}bias_0, {size}, self->{called}first);
    add_product({called}weight_0, self->input, {row}, {size}, self->{called}first);
}}
"""
    unused = "" if len(layers) > 1 or row else "    (void)self;\n"
    function = "network" if not prefix else f"{prefix}network"
    yield f"static void {function}(struct {name} *self, const float *input, float *output)\n{{\n{unused}{body}}}\n"


def _rule(policy: Policy) -> str:
    """What `policy.KINDS` does, from self->input to action in [-1, 1], or to a choice."""
    kind, actions, outputs = policy.kind, len(policy.action_low), len(policy.networks[""][-1][1])
    each = f"    for (int i = 0; i < {actions}; i++)\n"
    perturb = "perturb(self, {});\n" if "perturbation_" in policy.networks else ""
    begin = "    perturbation_row(self);\n" if perturb else ""
    if kind == "argmax":
        return _argmax_rule(policy)
    if kind == "tanh_mlp":
        return f"    network(self, self->input, action);\n{each}        action[i] = tanhf(action[i]);\n"
    if kind in ("tanh_mixture_mlp", "tanh_factored_mixture_mlp"):
        factored = kind == "tanh_factored_mixture_mlp"
        k = outputs // (2 * actions) if factored else outputs // (1 + actions)
        logit = f"i * {k} + " if factored else ""
        mean = f"{actions * k} + i * {k} + best" if factored else f"{k} + best * {actions} + i"
        return (
            f"    float output[{outputs}];\n    network(self, self->input, output);\n{each}    {{\n"
            f"        int best = 0;\n"
            f"        for (int k = 1; k < {k}; k++)\n            if (output[{logit}k] > output[{logit}best])\n"
            f"                best = k;\n        action[i] = tanhf(output[{mean}]);\n    }}\n"
        )
    if kind == "latent_decoder":
        size = literal(policy.constants["max_latent"])
        return (
            f"    float latent[{outputs}];\n    network(self, self->input, latent);\n"
            f"    for (int i = 0; i < {outputs}; i++)\n        latent[i] = {size} * tanhf(latent[i]);\n"
            f"    decoder_row(self);\n{begin}    decoder_network(self, latent, action);\n"
            f"{each}        action[i] = tanhf(action[i]);\n" + (f"    {perturb.format('action')}" if perturb else "")
        )
    if kind == "best_of_gaussian":
        candidates = len(policy.constants["noise"])
        low, high = (literal(it) for it in policy.constants["log_std_range"])
        before = (
            f"    float output[{outputs}];\n    network(self, self->input, output);\n{each}"
            f"        output[{actions} + i] = expf(clip(output[{actions} + i], {low}, {high}));\n"
        )
        make = (
            f"        for (int i = 0; i < {actions}; i++)\n"
            f"            candidate[i] = tanhf(output[i] + output[{actions} + i] * noise[j * {actions} + i]);\n"
        )
    else:
        candidates, latents = policy.constants["latents"].shape
        before = f"    network_row(self);\n{begin}"
        make = (
            f"        network(self, latents + j * {latents}, candidate);\n        for (int i = 0; i < {actions}; i++)\n"
            f"            candidate[i] = tanhf(candidate[i]);\n"
            + (f"        {perturb.format('candidate')}" if perturb else "")
        )
    return (
        f"    float candidate[{actions}], value, best = 0.0f;\n{before}    critic_row(self);\n"
        f"    for (int j = 0; j < {candidates}; j++) {{\n{make}        critic_network(self, candidate, &value);\n"
        "        if (j == 0 || value > best) {\n            best = value;\n"
        f"            copy(candidate, {actions}, action);\n        }}\n    }}\n"
    )


def _argmax_rule(policy: Policy) -> str:
    """Choices: the first NaN is the best, as in NumPy, and makes the action NaN."""
    number, constants = policy.num_actions or 0, policy.constants
    each = f"    for (int k = 0; k < {number}; k++)\n"
    text = f"    int best = 0;\n    float value[{number}];\n    network(self, self->input, value);\n"
    others = sorted((it for it in policy.networks if it), key="behavior_".__eq__)  # critics first
    if others:
        text = text.replace("value[", f"other[{number}], value[", 1)
    for prefix in others:
        text += f"    {prefix}network(self, self->input, other);\n"
        if prefix != "behavior_":
            text += f"{each}        value[k] = other[k] < value[k] ? other[k] : value[k];\n"
        if prefix == "behavior_" and "behavior_weight" in constants:
            text += f"{each}        value[k] += {literal(constants['behavior_weight'])} * other[k];\n"
        if prefix == "behavior_" and "log_threshold" in constants:
            text = text.replace("value[", "least, likeliest, value[", 1)
            text += "    least = value[0];\n    likeliest = other[0];\n"
            text += f"{each}        least = value[k] < least ? value[k] : least;\n"
            text += f"{each}        likeliest = other[k] > likeliest ? other[k] : likeliest;\n"
            text += f"{each}        if (other[k] - likeliest <= {literal(constants['log_threshold'])})\n"
            text += "            value[k] = least - (1.0f + fabsf(least));\n"
    text += f"    for (int k = 1; k < {number}; k++)\n"
    text += "        if (value[best] == value[best] && !(value[k] <= value[best]))\n            best = k;\n"
    return text + f"    action[0] = {literal(policy.action_low[0])} + (float)best + 0.0f * value[best];\n"


def _act(policy: Policy, name: str) -> str:
    """The function that others call: `policy.step`."""
    guards, upper, size, actions = policy.guards, name.upper(), policy.frame, len(policy.action_low)
    stack, history, rows = policy.stack, policy.history, len(policy.observation_mean)
    frames, clamp = stack * size, "x = clip(x, range_low[i], range_high[i]); " if guards and guards.clamp else ""
    arrays = {"observation_mean": policy.observation_mean, "observation_std": policy.observation_std}
    choices = policy.num_actions is not None
    if not choices or stack > 1:
        arrays["action_center"] = (policy.action_high + policy.action_low) / 2
        arrays["action_half_range"] = (policy.action_high - policy.action_low) / 2
    lines: list[str] = []
    if guards is None:
        lines += ["for (int i = 0; i < {size}; i++)", "    frame[i] = observation[i];"]
    else:
        fixed = np.isfinite(guards.constant)
        value = np.where(fixed, guards.constant, np.float32(0))
        arrays |= {"range_low": guards.low, "range_high": guards.high, "action_low": guards.action_low}
        arrays |= {
            "measurable": measurable(policy),
            "action_high": guards.action_high,
            "action_little": MOVED * (policy.action_high - policy.action_low) / 2,
        }
        lines += ["for (int i = 0; i < {size}; i++) {", "    float x = observation[i];", "    unsigned bits = 0u;"]
        if fixed.any():
            arrays |= {"constant_value": value, "constant_reach": ALIKE * np.abs(value), "constant_is": fixed}
            lines += ["    if (constant_is[i] > 0.0f) {"]
            lines += ["        if (!is_finite(x) || !(fabsf(x - constant_value[i]) <= constant_reach[i]))"]
            lines += ["            bits |= {upper}_CONSTANT;", "        x = constant_value[i];", "    }"]
        before = "self->state[1 + i]" if stack > 1 else "0.0f"
        lines += [
            "    if (!is_finite(x)",
            "        || !(fabsf(x - observation_mean[i]) < measurable[i])) {",
            *("        bits |= {upper}_MISSING;", "        missing = 1;"),
        ]
        lines += [f"        x = {before};", "    } else if (x < range_low[i] || x > range_high[i]) {"]
        lines += ["        bits |= {upper}_RANGE;", *([f"        {clamp.strip()}"] if clamp else []), "    }"]
        lines += ["    frame[i] = x;", "    self->on_observation[i] = (unsigned char)bits;", "    all |= bits;"]
        lines += [f"    self->{bit}[i] += (bits & {upper}_{bit.upper()}) != 0u;" for bit in ON_OBSERVATION] + ["}"]
    if stack == 1:
        lines += ["for (int i = 0; i < {size}; i++)"]
        lines += ["    self->input[i] = (frame[i] - observation_mean[i]) / observation_std[i];"]
    else:
        lines += ["copy(frame, {size}, seen);", f"for (int i = {size}; i < {frames}; i++)"]
        lines += [f"    seen[i] = begun ? self->state[1 + i - {size}] : frame[i % {size}];"]
        lines += [f"copy(self->state + {1 + frames}, {rows - frames}, seen + {frames});"]
        lines += [f"for (int i = 0; i < {rows}; i++)"]
        lines += ["    self->input[i] = (seen[i] - observation_mean[i]) / observation_std[i];"]
    lines += ["act(self, made);", "for (int i = 0; i < {actions}; i++) {"]
    in_units = "made[i]" if choices else "action_center[i] + action_half_range[i] * made[i]"
    lines += [f"    const float wanted = {in_units};"]
    if guards is None:
        lines += ["    action[i] = wanted;", "}"]
    else:
        lines += ["    unsigned bits = missing ? {upper}_INSTEAD : 0u;"]
        if guards.missing == "error":
            lines += ["    float bounded = 0.0f, final = 0.0f;", "    if (!missing) {", *_bounded("wanted")]
        else:
            instead = "action_fallback[i]"
            arrays["action_fallback"] = guards.fallback
            if guards.missing == "hold":
                instead = f"acted ? self->state[{history + 1} + i] : {instead}"
            lines += [f"    const float safe = missing ? ({instead}) : wanted;", "    float bounded, final;"]
            lines += ["    {", *_bounded("safe")]
        if np.isfinite(guards.rate).any():
            arrays["action_rate"] = guards.rate
            last = f"self->state[{history + 1} + i]"
            lines += ["        if (acted)"]
            lines += [f"            final = clip(bounded, {last} - action_rate[i], {last} + action_rate[i]);"]
            lines += ["        if (fabsf(bounded - final) > action_little[i])", "            bits |= {upper}_RATE;"]
        write = ["        made[i] = final;"]
        lines += [*write, "    }", "    self->on_action[i] = (unsigned char)bits;", "    all |= bits;"]
        lines += [
            f"    self->{bit}[i] += (bits & {upper}_{bit.upper()}) != 0u;" for bit in BITS if bit not in ON_OBSERVATION
        ]
        lines += ["}"]
        if guards.missing == "error":
            lines += ["if (missing)", "    return all;"]
        lines += ["copy(made, {actions}, action);"]
    if stack > 1:
        inner = [f"for (int i = {1 + frames + (stack - 1) * actions - 1}; i >= {1 + frames + actions}; i--)"]
        inner += [f"    self->state[i] = self->state[i - {actions}];"]
        inner = inner if stack > 2 else []
        executed = (
            "made[i]" if guards is None and not choices else "(action[i] - action_center[i]) / action_half_range[i]"
        )
        inner += ["self->state[0] = 1.0f;", f"copy(seen, {frames}, self->state + 1);"]
        inner += ["for (int i = 0; i < {actions}; i++)", f"    self->state[{1 + frames} + i] = {executed};"]
        if guards is not None and guards.missing != "error":
            inner = ["if (!missing || begun) {", *(f"    {it}" for it in inner), "}"]
        lines += inner
    if guards is not None and guards.remember:
        lines += [f"self->state[{history}] = 1.0f;", f"copy(action, {actions}, self->state + {history + 1});"]
    head = ["float frame[{size}], made[{actions}];"]
    if stack > 1:
        head += [f"float seen[{rows}];", "const int begun = self->state[0] > 0.0f;"]
    if guards is not None:
        head += ["unsigned all = 0u;", "int missing = 0;"]
        if guards.remember and (guards.missing == "hold" or np.isfinite(guards.rate).any()):
            head += [f"const int acted = self->state[{history}] > 0.0f;"]
    body = "\n".join(f"    {it}" for it in [*head, *lines, "return all;" if guards is not None else "return 0u;"])
    for key, text in {"{size}": size, "{actions}": actions, "{upper}": upper}.items():
        body = body.replace(key, str(text))
    reset = "    (void)action;\n"
    if guards is not None and guards.remember:
        reset = (
            f"    for (int i = 0; action != NULL && i < {actions}; i++)\n        if (!is_finite(action[i]))\n"
            f"            return;\n    if (action != NULL) {{\n        self->state[{history}] = 1.0f;\n"
            f"        copy(action, {actions}, self->state + {history + 1});\n    }}\n"
        )
    return "\n".join(
        [
            *(array(key, value) for key, value in arrays.items()),
            f"void {name}_init(struct {name} *self)\n{{\n    memset(self, 0, sizeof *self);\n}}\n",
            f"void {name}_reset(struct {name} *self, const float *action)\n{{\n"
            f"    memset(self->state, 0, sizeof self->state);\n{reset}}}\n",
            f"unsigned {name}_act(struct {name} *self, const float *observation, float *action)\n{{\n{body}\n}}\n",
        ]
    )


def _bounded(value: str) -> list[str]:
    lines = [f"final = bounded = clip({value}, action_low[i], action_high[i]);"]
    lines += [f"if (fabsf({value} - bounded) > action_little[i])", "    bits |= {upper}_BOUNDS;"]
    return [f"        {it}" for it in lines]


def array(name: str, values: Any) -> str:
    """static const float NAME[] = {...}, row by row."""
    flat = [literal(it) for it in np.asarray(values, np.float32).ravel()]
    lines = [", ".join(flat[i : i + WIDTH]) for i in range(0, len(flat), WIDTH)]
    inside = ",\n    ".join(lines)
    return f"static const float {name}[{len(flat)}] = {{\n    {inside}}};\n"


def literal(value: Any) -> str:
    """The float32 number exactly: nine digits suffice."""
    if np.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
