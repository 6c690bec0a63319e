// What help() shows of a session's methods; the first line of each tells Python the signature.
#pragma once

namespace fastltc::runtime {

inline constexpr const char* kStepText =
    R"(step($self, x, dt=1.0, out=None, reset=None)
--

Run one time step of every stream.

Args:
    x: observations, ``[S, I]``, or ``[I]`` for one stream; finite. float32, C-contiguous arrays
        are read in place, whatever else numpy makes real numbers of is converted first.
    dt: time since the last step in units of ``time_unit`` seconds, finite, not negative: a number,
        or one for each stream, ``[S]``.
    out: float32, C-contiguous array of the shape of the result, to write it to. It may share
        memory with ``x`` and ``dt``.
    reset: set the state to zeros before the step: a bool, or one for each stream, ``[S]``; no by
        default.

Returns:
    Outputs, float32, ``[S, M]``, or ``[M]`` for an ``x`` of ``[I]``; ``out`` if it is given.

Raises:
    ValueError: if a shape is wrong, or a number is not finite or a time step negative. The state
        is then as it was before.
    TypeError: if an argument holds no real numbers, or more than numbers (a masked array, one with
        a unit), a reset is no bool, or ``out`` is no array of float32.
    RuntimeError: if another thread is using the session.)";

inline constexpr const char* kRunText =
    R"(run($self, xs, timespans=None, out=None, resets=None)
--

Run a sequence of time steps; the state carries over from and to other calls.

The same as calling ``step`` for each ``xs[t]``, without the way through Python in between.
Ctrl-C ends it between two steps, with the state where it then is.

Args:
    xs: observations, ``[T, S, I]``, or ``[T, I]`` for one stream; finite; T may be 0.
    timespans: time since the step before in units of ``time_unit`` seconds, finite, not negative:
        a number, ``[T]`` or ``[T, S]``; 1 by default.
    out: float32, C-contiguous array of the shape of the result, to write it to. It may share
        memory with ``xs`` and ``timespans``.
    resets: before which steps the state is set to zeros, bool, ``[T]`` or ``[T, S]``; before none
        by default.

Returns:
    Outputs, float32, ``[T, S, M]``, or ``[T, M]`` for ``xs`` of ``[T, I]``; ``out`` if it is given.

Raises:
    ValueError: as ``step``; everything is checked before the first step.
    TypeError: as ``step``.
    RuntimeError: as ``step``.)";

inline constexpr const char* kResetText =
    R"(reset($self, streams=None)
--

Set the state to zeros.

Args:
    streams: index or indices of the streams to reset; all by default.

Raises:
    IndexError: if there is no such stream.
    TypeError: if an index is no integer.)";

inline constexpr const char* kGetStateText =
    R"(get_state($self)
--

Return a copy of the state, float32, ``[S, state_size]``.

For each recurrent layer, in order, its h ``[N]`` (of an LTC the membrane potentials) and, with
mixed memory, the c ``[N]`` of its memory cell.)";

inline constexpr const char* kSetStateText =
    R"(set_state($self, state)
--

Set the state.

Args:
    state: as ``get_state`` returns it, ``[S, state_size]``, or ``[state_size]`` for one stream;
        finite.

Raises:
    ValueError: if its shape is wrong or a number is not finite; the state is then as it was.)";

}  // namespace fastltc::runtime
