// Weights in small groups (groups.h) unpacked to bf16 as Unpacker of unpack_bf16.h does it, with the same interface.
//
// Bound by vector instructions: some 40 for 8 columns of 16 outputs, 35 with a table.
#pragma once

#include "float8.h"
#include "groups.h"
#include "unpack_bf16.h"

namespace parlor {
namespace amx {

template <int kKind>
class GroupUnpacker {
  public:
    static constexpr int kStepColumns = 8;
    static constexpr int64_t kUnitBytes = unit_lines(kKind) * 64;
    static constexpr int64_t kStepBytes = kUnitBytes / 4;
    static constexpr int kUnitSteps = 4;

    GroupUnpacker() = default;

    // ahead  bytes from the codes to those that will be wanted next
    GroupUnpacker(const linear_weight& w, const int32_t*, const Panel& panel, int64_t ahead, uint16_t* target)
        : weight_(&w), target_(target), panel_(panel), ahead_(ahead), block_steps_(panel.columns / kStepColumns),
          left_((panel.second < 0 ? 1 : 2) * panel.count * block_steps_), size_(w.group_size), block_(panel.first) {
        seek();
    }

    int64_t steps() const { return left_; }

    // Of the columns 0..15 and 16..31 of a unit: weight = (32,768 + code) * scale + offset, or table[code] * scale.
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
            f.offsets[half] = _mm512_fnmadd_ps(_mm512_set1_ps(32768.0f + zero), scale, _mm512_sub_ps(_mm512_setzero_ps(), least));
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
            const __m512i bytes = _mm512_set1_epi32(0x0000FF00), base = _mm512_set1_epi32(0x47000000);
            const auto column = [&](__m512i shifted) {
                const __m512i number = _mm512_or_si512(_mm512_and_si512(shifted, bytes), base);
                return _mm512_fmadd_ps(_mm512_castsi512_ps(number), scale, offset);
            };
            _mm512_store_si512(target_, rounded_pair(column(_mm512_slli_epi32(code, 8)), column(_mm512_srli_epi32(code, 8))));
            _mm512_store_si512(target_ + 2 * kLanes, rounded_pair(column(code), column(_mm512_srli_epi32(code, 16))));
            target_ += 4 * kLanes;
        }
        if (++within_ == kUnitSteps) within_ = 0, unit_ += kUnitBytes;
    }

    // After one, two or four steps, never across a unit of columns.
    __attribute__((always_inline)) void advance(int64_t steps) {
        left_ -= steps;
        step_ += steps;
        if (step_ < block_steps_) return;
        if (++block_ == panel_.first + panel_.count) block_ = panel_.second;
        if (left_ > 0) seek();
    }

    // Until the present unit of columns is whole.
    int64_t steps_to_go() const { return kUnitSteps - step_ % kUnitSteps; }

  private:
    // A register of table[code] for each column: of the bits of an index only the lowest four count.
    __attribute__((always_inline)) void step_of_table(__m512 table, __m512 scale) {
        const __m512i line = _mm512_loadu_si512(unit_ + within_ * 64);
#pragma GCC unroll 2
        for (int odd = 0; odd < 2; ++odd) {
            const auto column = [&](int place) {
                const __m512i index = _mm512_srli_epi32(line, 8 * place + 4 * odd);
                return _mm512_mul_ps(_mm512_permutexvar_ps(index, table), scale);
            };
            _mm512_store_si512(target_, rounded_pair(column(0), column(2)));
            _mm512_store_si512(target_ + 2 * kLanes, rounded_pair(column(1), column(3)));
            target_ += 4 * kLanes;
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
        step_ = 0;
        within_ = 0;
    }

    const linear_weight* weight_ = nullptr;
    GroupStream stream_ = {};
    const uint8_t* unit_ = nullptr;
    uint16_t* target_ = nullptr;
    Panel panel_ = {};
    int64_t ahead_ = 0, block_steps_ = 0, left_ = 0, size_ = 32, block_ = -1, step_ = 0;  // size_ of a group
    int within_ = 0;  // steps of the unit that are done
};

}  // namespace amx
}  // namespace parlor
