// Weights in small groups (groups.h) unpacked to bf16 as Unpacker of unpack_bf16.h does it, with the same interface.
//
// Bound by vector instructions: some 40 for 8 columns of 16 outputs, 35 with a table, 25 more if split.
#pragma once

#include "float8.h"
#include "groups.h"
#include "unpack_bf16.h"

namespace parlor {
namespace amx {

template <int kKind, bool kSplit>
class GroupUnpacker : public Walk<kSplit> {
  public:
    using Base = Walk<kSplit>;
    using Base::kUnitSteps;
    static constexpr int64_t kUnitBytes = unit_lines(kKind) * 64;
    static constexpr int64_t kStepBytes = kUnitBytes / kUnitSteps;

    GroupUnpacker() = default;

    GroupUnpacker(const linear_weight& w, const int32_t*, const Panel& panel, int64_t ahead, uint16_t* target)
        : Base(w, panel, ahead, target), size_(w.group_size) {
        seek();
    }

    // Of the columns 0..15 and 16..31 of a unit: weight = (128 + code) * scale + offset, or table[code] * scale.
    struct Factors {
        __m512 scales[2], offsets[2], table;
    };

    __attribute__((always_inline)) Factors factors() const {
        const int64_t column = panel_.column + step_ / kUnitSteps * kGroupUnit;
        Factors f;
#pragma GCC unroll 2
        for (int half = 0; half < (size_ == 16 ? 2 : 1); ++half) {
            const int64_t group = column / size_ + half;
            __m512 scale = factor(stream_.scales, group, true), least = _mm512_setzero_ps();
            if (stream_.mins) least = factor(stream_.mins, group, false);
            if (has_steps(*weight_)) {
                const int64_t step = column / kSharedColumns * kLanes;
                scale = _mm512_mul_ps(scale, load_halves(stream_.steps + step));
                if (stream_.mins) least = _mm512_mul_ps(least, load_halves(stream_.min_steps + step));
            }
            const float zero = stream_.mins ? 0.0f : static_cast<float>(weight_->zero);
            f.scales[half] = scale;
            f.offsets[half] = _mm512_fnmadd_ps(_mm512_set1_ps(128.0f + zero), scale, _mm512_sub_ps(_mm512_setzero_ps(), least));
        }
        if (size_ != 16) f.scales[1] = f.scales[0], f.offsets[1] = f.offsets[0];
        if (!has_table(kKind)) return f;
        const __m512i values = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(weight_->table)));
        f.table = _mm512_sub_ps(_mm512_cvtepi32_ps(values), _mm512_set1_ps(static_cast<float>(weight_->zero)));
        if (!stream_.factors) return f;
        const __m512 factors = _mm512_loadu_ps(stream_.factors);
        f.scales[0] = _mm512_mul_ps(f.scales[0], factors);
        f.scales[1] = _mm512_mul_ps(f.scales[1], factors);
        return f;
    }

    __attribute__((always_inline)) void step(const Factors& f) {
        const int half = within_ / 2;
        const __m512 scale = f.scales[half], offset = f.offsets[half];
        for (int line = within_; line < unit_lines(kKind); line += kUnitSteps)
            _mm_prefetch(reinterpret_cast<const char*>(unit_) + ahead_ + line * 64, _MM_HINT_T1);
        if (has_table(kKind)) step_of_table(f.table, scale);
#pragma GCC unroll 2
        for (int odd = 0; odd < (has_table(kKind) ? 0 : 2); ++odd) {
            const __m512i code = quad(odd);
            const __m512i bytes = _mm512_set1_epi32(0x00FF0000), base = _mm512_set1_epi32(0x43000000);  // 128
            const auto column = [&](__m512i shifted) {
                const __m512i number = _mm512_or_si512(_mm512_and_si512(shifted, bytes), base);
                return _mm512_fmadd_ps(_mm512_castsi512_ps(number), scale, offset);
            };
            put(column(_mm512_slli_epi32(code, 16)), column(code));
            put(column(_mm512_slli_epi32(code, 8)), column(_mm512_srli_epi32(code, 8)));
        }
        if (++within_ == kUnitSteps) within_ = 0, unit_ += kUnitBytes;
    }

    __attribute__((always_inline)) void advance(int64_t steps) {
        if (this->ends_block(steps)) seek();
    }

  private:
    using Base::ahead_, Base::block_, Base::panel_, Base::put, Base::step_, Base::weight_;

    // A register of table[code] for each column: of the bits of an index only the lowest four count.
    __attribute__((always_inline)) void step_of_table(__m512 table, __m512 scale) {
        const __m512i line = _mm512_loadu_si512(unit_ + within_ * 64);
#pragma GCC unroll 2
        for (int odd = 0; odd < 2; ++odd) {
            const auto column = [&](int place) {
                const __m512i index = _mm512_srli_epi32(line, 8 * place + 4 * odd);
                return _mm512_mul_ps(_mm512_permutexvar_ps(index, table), scale);
            };
            put(column(0), column(2));
            put(column(1), column(3));
        }
    }

    __attribute__((always_inline)) __m512 factor(const void* source, int64_t group, bool is_signed) const {
        if (weight_->scale_kind == PARLOR_SCALE_F16)
            return load_halves(static_cast<const uint16_t*>(source) + group * kLanes);
        const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(source) + group);
        if (weight_->scale_kind == PARLOR_SCALE_E4M3) return e4m3_to_float(bytes);
        if (weight_->scale_kind == PARLOR_SCALE_E8M0)
            return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), 23));
        return _mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
    }

    static __m512i shifted(__m512i line, int count) { return _mm512_srlv_epi32(line, _mm512_set1_epi32(count)); }

    // Codes of the columns 8 within_ + 4 odd and the three following ones, a byte each.
    __attribute__((always_inline)) __m512i quad(int odd) const {
        const uint8_t* lines = unit_;
        __m512i code = _mm512_setzero_si512();
        if (has_nibbles(kKind)) {
            const __m512i line = _mm512_loadu_si512(lines + within_ * 64);
            code = _mm512_and_si512(odd ? _mm512_srli_epi32(line, 4) : line, _mm512_set1_epi8(15));
            lines += 4 * 64;
        }
        if (has_pairs(kKind)) {
            const __m512i line = _mm512_loadu_si512(lines + within_ / 2 * 64);
            const __m512i pairs = _mm512_and_si512(shifted(line, within_ % 2 * 4 + odd * 2), _mm512_set1_epi8(3));
            code = _mm512_or_si512(code, kKind == PARLOR_LINEAR_G6 ? _mm512_slli_epi32(pairs, 4) : pairs);
            lines += 2 * 64;
        }
        if (has_bits(kKind)) {
            const __m512i bits = shifted(_mm512_loadu_si512(lines), within_ * 2 + odd);
            const __m512i one = _mm512_and_si512(bits, _mm512_set1_epi8(1));
            code = _mm512_or_si512(code, _mm512_slli_epi32(one, kKind == PARLOR_LINEAR_G5 ? 4 : 2));
        }
        return code;
    }

    void seek() {
        stream_ = group_stream(*weight_, block_);
        unit_ = stream_.codes + panel_.column / kGroupUnit * kUnitBytes;
        within_ = 0;
    }

    GroupStream stream_ = {};
    const uint8_t* unit_ = nullptr;
    int64_t size_ = 32;  // of a group
    int within_ = 0;     // steps of the unit that are done
};

}  // namespace amx
}  // namespace parlor
