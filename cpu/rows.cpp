// Rows one by one: embeddings, norms, activations, and what is done to logits.
//
// Bound by memory for prompts (activations by exp()) and by the start of a region for one token, so few rows stay on the
// calling thread.
// Each row is computed alone and in the same order, whatever the batch and the number of threads.
// Reference: the functions of these names in model/kernels/reference/operations.py.
#include <cmath>

#include "operations.h"
#include "simd.h"
#include "thread_team.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int64_t kValuesPerShare = 8192;  // less work than this is not worth another thread (about 2 us)

int64_t rows_per_share(int64_t row_values) {
    return row_values >= kValuesPerShare ? 1 : kValuesPerShare / (row_values > 0 ? row_values : 1);
}

template <class Element>
void embed_as(const EmbedArgs& a) {
    const auto* table = static_cast<const Element*>(a.table);
    const int64_t n = a.hidden_size;
    team().parallel_for(a.num_tokens, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
            const Element* row = table + a.token_ids[t] * n;
            float* out = a.out + t * n;
            const Vec scale = set1(a.scale);
            for_lanes(n, [&](int64_t i) { store(out + i, load(row + i) * scale); },
                      [&](int64_t i, int64_t count) { store_n(out + i, load_n(row + i, count) * scale, count); });
        }
    }, rows_per_share(n));
}

// rows(begin, end) in parallel, as many at a time as are worth a thread.
template <class Rows>
void for_rows(int64_t num_rows, int64_t row_values, Rows rows) {
    team().parallel_for(num_rows, [&](int64_t begin, int64_t end, int) { rows(begin, end); }, rows_per_share(row_values));
}

// sum of f(x[i]), lane by lane.
template <class Value>
float sum_of(const float* x, int64_t n, Value value) {
    Vec total = zero();
    float rest = 0.0f;
    for_lanes(n, [&](int64_t i) { total = total + value(load(x + i)); },
              [&](int64_t i, int64_t count) {
                  alignas(64) float last[kLanes];
                  store(last, value(load_n(x + i, count)));
                  for (int64_t j = 0; j < count; ++j) rest += last[j];
              });
    return sum(total) + rest;
}

void normalize_group(const NormArgs& a, const float* x, const float* weight, const float* bias, float* out) {
    float mean = 0.0f, factor = 1.0f;
    if (a.kind == PARLOR_NORM_LAYER) mean = sum_of(x, a.size, [](Vec v) { return v; }) / static_cast<float>(a.size);
    if (a.kind != PARLOR_NORM_NONE) {
        const Vec m = set1(mean);
        const float squares = sum_of(x, a.size, [m](Vec v) { return (v - m) * (v - m); });
        factor = 1.0f / std::sqrt(squares / static_cast<float>(a.size) + a.eps);
    }
    const Vec m = set1(mean), f = set1(factor), scale = set1(a.scale);
    const auto value = [&](Vec v, Vec w, Vec b) { return ((v - m) * f * w + b) * scale; };
    for_lanes(a.size,
              [&](int64_t i) {
                  const Vec y = value(load(x + i), weight ? load(weight + i) : set1(1.0f), bias ? load(bias + i) : zero());
                  store(out + i, a.add ? load(out + i) + y : y);
              },
              [&](int64_t i, int64_t n) {
                  const Vec y = value(load_n(x + i, n), weight ? load_n(weight + i, n) : set1(1.0f),
                                      bias ? load_n(bias + i, n) : zero());
                  store_n(out + i, a.add ? load_n(out + i, n) + y : y, n);
              });
}

Vec silu(Vec a) { return a / (set1(1.0f) + exp(zero() - a)); }

Vec sigmoid(Vec a) { return set1(1.0f) / (set1(1.0f) + exp(zero() - a)); }

Vec tanh(Vec a) { return set1(1.0f) - set1(2.0f) / (exp(a + a) + set1(1.0f)); }

// a / 2 * (1 + tanh(u)) = a / (1 + exp(-2 * u))
Vec gelu_tanh(Vec a) {
    const Vec u = set1(0.7978845608028654f) * fma(set1(0.044715f) * a * a, a, a);
    return a / (set1(1.0f) + exp(zero() - (u + u)));
}

Vec gelu(Vec a) {  // the exact one is rare: lane by lane
    alignas(64) float x[kLanes];
    store(x, a);
    for (float& value : x) value = 0.5f * value * (1.0f + std::erf(value * 0.7071067811865476f));
    return load(x);
}

Vec relu2(Vec a) {
    const Vec positive = max(a, zero());
    return positive * positive;
}

Vec relu(Vec a) { return max(a, zero()); }

Vec smallest(Vec a, Vec b) { return zero() - max(zero() - a, zero() - b); }

Vec clamped(Vec a) {
    const Vec x = smallest(a, set1(7.0f));
    return x / (set1(1.0f) + exp(set1(-1.702f) * x));
}

Vec clamped_up(Vec a) { return smallest(max(a, set1(-7.0f)), set1(7.0f)) + set1(1.0f); }

// y = f(gate) * g(up)
template <class Function, class Up>
void activate_with(const ActivationArgs& a, Function f, Up g) {
    for_rows(a.num_rows, a.size, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            const float* const gate = a.x + r * a.x_stride;
            const float* const up = a.gated ? a.gated + r * a.gated_stride : nullptr;
            float* const out = a.out + r * a.out_stride;
            for_lanes(a.size,
                      [&](int64_t i) {
                          const Vec y = f(load(gate + i));
                          store(out + i, up ? y * g(load(up + i)) : y);
                      },
                      [&](int64_t i, int64_t n) {
                          const Vec y = f(load_n(gate + i, n));
                          store_n(out + i, up ? y * g(load_n(up + i, n)) : y, n);
                      });
        }
    });
}

}  // namespace

void normalize(const NormArgs& a) {
    for_rows(a.num_rows, a.num_groups * a.size, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
            for (int64_t g = 0; g < a.num_groups; ++g)
                normalize_group(a, a.x + r * a.x_stride + g * a.size, a.weight ? a.weight + g * a.weight_stride : nullptr,
                                a.bias ? a.bias + g * a.weight_stride : nullptr, a.out + r * a.out_stride + g * a.size);
    });
}

void activate_rows(const ActivationArgs& a) {
    const auto as_it_is = [](Vec up) { return up; };
    switch (a.kind) {
        case PARLOR_ACTIVATION_SILU: return activate_with(a, silu, as_it_is);
        case PARLOR_ACTIVATION_GELU: return activate_with(a, gelu, as_it_is);
        case PARLOR_ACTIVATION_GELU_TANH: return activate_with(a, gelu_tanh, as_it_is);
        case PARLOR_ACTIVATION_RELU2: return activate_with(a, relu2, as_it_is);
        case PARLOR_ACTIVATION_RELU: return activate_with(a, relu, as_it_is);
        case PARLOR_ACTIVATION_CLAMPED: return activate_with(a, clamped, clamped_up);
        case PARLOR_ACTIVATION_SIGMOID: return activate_with(a, sigmoid, as_it_is);
        default: return activate_with(a, as_it_is, as_it_is);
    }
}

// A number for each head, so not worth vectors.
void softplus(const SoftplusArgs& a) {
    for_rows(a.num_rows, 32 * a.size, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
            for (int64_t i = 0; i < a.size; ++i) {
                const float x = a.x[r * a.x_stride + i] + (a.bias ? a.bias[i] : 0.0f);
                const float y = std::log1p(std::exp(-std::fabs(x))) + (x > 0 ? x : 0.0f);
                const float bounded = y < a.low ? a.low : y > a.high ? a.high : y;
                a.out[r * a.out_stride + i] = a.scale ? bounded * a.scale[i] : bounded;
            }
    });
}

void xielu(const XieluArgs& a) {
    const Vec above = set1(a.above), below = set1(a.below), half = set1(0.5f), one = set1(1.0f);
    const auto value = [&](Vec x) {
        const Vec high = max(x, zero()), low = smallest(x, zero());
        return half * x + above * high * high + below * (exp(low) - one - low);
    };
    for_rows(a.num_rows, a.size, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            const float* const x = a.x + r * a.x_stride;
            float* const out = a.out + r * a.out_stride;
            for_lanes(a.size, [&](int64_t i) { store(out + i, value(load(x + i))); },
                      [&](int64_t i, int64_t n) { store_n(out + i, value(load_n(x + i, n)), n); });
        }
    });
}

void cut(const CutArgs& a) {
    const auto itself = [](Vec v) { return v; };
    for_rows(a.num_rows, a.size, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            float* const x = a.x + r * a.x_stride;
            const float count = static_cast<float>(a.size), mean = sum_of(x, a.size, itself) / count;
            const Vec m = set1(mean);
            const float squares = sum_of(x, a.size, [m](Vec v) { return (v - m) * (v - m); });
            const Vec limit = set1(mean + a.deviations * std::sqrt(squares / count));
            const auto value = [limit](Vec v) { return max(v - limit, zero()); };
            for_lanes(a.size, [&](int64_t i) { store(x + i, value(load(x + i))); },
                      [&](int64_t i, int64_t n) { store_n(x + i, value(load_n(x + i, n)), n); });
        }
    });
}

void match(const MatchArgs& a) {
    const auto square = [](Vec v) { return v * v; };
    for_rows(a.num_rows, a.size, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            float* const x = a.x + r * a.x_stride;
            const float count = static_cast<float>(a.size), own = sum_of(x, a.size, square) / count;
            const float wanted = sum_of(a.like + r * a.like_stride, a.size, square) / count;
            const Vec factor = set1(std::sqrt(wanted / (own > a.eps ? own : a.eps)));
            for_lanes(a.size, [&](int64_t i) { store(x + i, load(x + i) * factor); },
                      [&](int64_t i, int64_t n) { store_n(x + i, load_n(x + i, n) * factor, n); });
        }
    });
}

void mix(const MixArgs& a) {
    for_rows(a.num_rows, a.size * a.num_inputs * a.num_outputs, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
            for (int64_t o = 0; o < a.num_outputs; ++o) {
                const float* const x = a.x + r * a.x_stride;
                const float* const shares = a.shares + r * a.shares_stride + o * a.num_inputs;
                float* const out = a.out + r * a.out_stride + o * a.size;
                const auto mixed = [&](Vec sum, auto load_input) {
                    for (int64_t j = 0; j < a.num_inputs; ++j) sum = fma(load_input(x + j * a.size), set1(shares[j]), sum);
                    return sum;
                };
                for_lanes(a.size,
                          [&](int64_t i) {
                              store(out + i, mixed(a.add ? load(out + i) : zero(),
                                                   [i](const float* input) { return load(input + i); }));
                          },
                          [&](int64_t i, int64_t n) {
                              store_n(out + i, mixed(a.add ? load_n(out + i, n) : zero(),
                                                     [i, n](const float* input) { return load_n(input + i, n); }), n);
                          });
            }
    });
}

void cap(const CapArgs& a) {
    const Vec scale = set1(a.cap > 0 ? a.scale / a.cap : a.scale), top = set1(a.cap);
    const auto value = [&](Vec v) { return a.cap > 0 ? top * tanh(v * scale) : v * scale; };
    for_rows(a.num_rows, a.size, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            float* const x = a.x + r * a.x_stride;
            for_lanes(a.size, [&](int64_t i) { store(x + i, value(load(x + i))); },
                      [&](int64_t i, int64_t n) { store_n(x + i, value(load_n(x + i, n)), n); });
        }
    });
}

void combine_rows(const CombineArgs& a) {
    for_rows(a.num_rows, a.size * a.top_k, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            const int32_t* const place = a.place + r * a.top_k;
            const float* const shares = a.shares ? a.shares + r * a.top_k : nullptr;
            float* const out = a.out + r * a.out_stride;
            const Vec factor = set1(a.gate ? 1.0f / (1.0f + std::exp(-a.gate[r])) : 1.0f);
            const auto with_experts = [&](Vec sum, auto load_given) {
                for (int64_t j = 0; j < a.top_k; ++j)
                    sum = fma(load_given(a.given + place[j] * a.given_stride), set1(shares ? shares[j] : 1.0f), sum);
                return sum;
            };
            for_lanes(a.size,
                      [&](int64_t i) {
                          store(out + i, with_experts(a.add || a.gate ? load(out + i) * factor : zero(),
                                                      [i](const float* given) { return load(given + i); }));
                      },
                      [&](int64_t i, int64_t n) {
                          store_n(out + i, with_experts(a.add || a.gate ? load_n(out + i, n) * factor : zero(),
                                                        [i, n](const float* given) { return load_n(given + i, n); }), n);
                      });
        }
    });
}

void embed_rows(const EmbedArgs& a) {
    if (a.table_dtype == PARLOR_F32) embed_as<float>(a);
    else if (a.table_dtype == PARLOR_F16) embed_as<half_t>(a);
    else embed_as<bfloat_t>(a);
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
