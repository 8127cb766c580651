"""Tables of what is fast."""

from __future__ import annotations

import statistics

from benchmarks.table_rows.common import Results, Rows


def speed(results: Results) -> Rows:
    """What is fast, what was asked for."""
    rows = [["what", "measured", "wanted"]]
    if found := results("budget_speed"):
        rows.append(["`python -m search.budget lfrc-step5`, wall", f"{found['wall_s']['median']:.2f} s", "under 0.4 s"])
        rate = f"{found['candidates_per_s']:,.0f} a second"
        rows.append(["architectures costed on one core", rate, "10,000 a second"])
    if found := results("space_speed"):
        seconds = found["median_of_passes"]["draw_s"]["wall"]
        shown = f"{found['distinct']:,} networks of `{found['space']}` drawn within {found['budget']}, one core"
        rows.append([shown, f"{seconds:.2f} s", "under 1 s"])
    rows += _judging(results)
    if found := results("rec_open"):
        seconds = statistics.median(run["seconds"] for run in found["cached"])
        memory = max(run["rss_growth_once_labels_are_read_mb"] for run in found["cached"])
        shown = f"{seconds:.2f} s, {memory:.0f} MB"
        rows.append(["opening a .rec of 6 M images, index cached", shown, "3 s, 200 MB"])
    if found := results("loading"):
        rows.append(["read, decode, flip, to tensor, one core", f"{found['images_per_s']:,.0f} images/s", "6,000"])
    if found := results("augment_speed"):
        rows.append(["AdaFace's augmentation, one core", f"{found['images_per_s']:,.0f} images/s", "3,000"])
    if found := results("loop_overhead"):
        rows.append(["training loop over bare steps", f"{found['overhead_percent']:.1f} %", "at most 5 %"])
    if found := results("classifier"):
        memory, step, losses = found["memory"], found["step"], found["losses"]
        over = f"{memory['over_mib']:.0f} MiB over centres, gradient, momentum"
        rows.append([f"a step with {memory['classes']:,} classes", over, f"at most {memory['limit_mib']:.0f} MiB"])
        share = f"{step['share']:.2f} of the time"
        rows.append([f"{step['classes']:,} classes, against a full matrix", share, "at most 1"])
        extra = f"+{max(losses['extra_percent_of_it'].values()):.1f} %"
        rows.append(
            ["costliest loss, of ArcFace's step of `lfrc-step5`", extra, f"at most {losses['limit_percent']:.0f} %"]
        )
    if found := results("two_views"):
        shown = f"{max(row['ratio'] for row in found['rows']):.2f} times"
        limit = max(row["limit"] for row in found["rows"])
        rows.append(["a step on two views, over one", shown, f"at most {limit:.1f} times"])
    if found := results("train_speed_cpu"):
        for arch in ("lfrc-step5", "mobilefacenet"):
            ratio = found["against_plain"].get(arch, {}).values()
            shown = f"{max(ratio):.2f} times the images" if ratio else "not run"
            rows.append([f"training `{arch}`, two cores, over plain fp32", shown, "2.0 times"])
    if found := results("onnx_forms"):
        for row in found["rows"]:
            name = f"ONNX `{row['arch']}`, {row['activation']}"
            if row["shipped"]["fp32"] != "plain":
                rows.append([f"{name} rewritten, fp32", f"{row['fp32_over_plain']:.2f} of the time", "at most 0.55"])
            rows.append([f"{name}, int8 over fp32", f"{row['int8_over_fp32']:.2f} of the time", "at most 0.75"])
    return rows


def _judging(results: Results) -> Rows:
    """Videos and scores at the challenges' scale."""
    rows: Rows = []
    if found := results("video_speed"):
        shown = f"{found['short']['frames_per_second']:,.0f} frames/s, {found['short']['short_peak_mb']:.0f} MB"
        rows.append(["200,000 videos of 64 frames cleaned, one core", shown, "100,000 frames/s, at most 1,074 MB"])
        share = min(row["share"] for row in found["long"].values())
        memory = max(row["long_peak_mb"] for row in found["long"].values())
        shown = f"{share:.2f} of the bare product's speed, {memory:.0f} MB"
        rows.append(["10,000 frames in one video", shown, "at least 0.6, at most 2,147 MB"])
    if found := results("at_scale"):
        speed, limits = found["speed"], found["limits"]
        cached = f"{speed['share_of_cached']:.2f} of one in a core's cache"
        shown = (
            f"{speed['share']:.2f} of the bare product's speed ({cached}), {speed['extra_mib']} MiB beyond the inputs"
        )
        wanted = f"at least {limits['share']:g}, at most {limits['extra_mib']:,} MiB"
        what = f"{speed['pairs'] / 1e9:.0f} billion pairs scored, once read: {speed['seconds']:.0f} s"
        rows.append([f"{what}, {found['threads']} cores", shown, wanted])
        rows.append(["the challenge's 4.3e11 pairs, at that rate", f"{speed['challenge_minutes']:.1f} minutes", "–"])
    return rows


def demo(results: Results) -> Rows:
    """The demo on synthetic faces."""
    rows = [["what", "measured", "wanted"]]
    if found := results("demo"):
        rows.append(["`make demo`, fresh clone", f"{found['wall_seconds']:.0f} s", "under 480 s"])
        rows.append(["of which the job itself", f"{found['job_seconds']:.0f} s", "under 240 s"])
        rows.append(["held-out people, 10-fold accuracy", f"{found['accuracy']:.3f}", "0.95"])
        rows.append(["the same pairs by raw pixels", f"{found['raw_pixels']:.3f}", "under 0.75"])
    return rows
