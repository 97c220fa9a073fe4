"""A script written for Sky Batch runs after its imports are renamed, its unguarded top level included."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.api.scripts import command, run, run_well, write

SCRIPT = """
    from dataclasses import dataclass
    from typing import Any, Dict, List

    import skybatch
    from skybatch import io_formats
    from skybatch import utils
    from skybatch import registry


    @registry.INPUT_READER_REGISTRY.type_register(name='range')
    @dataclass
    class RangeReader(io_formats.InputReader):
        count: int

        def __len__(self) -> int:
            return self.count

        def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> List[Dict[str, Any]]:
            return [{'index': i} for i in range(start_idx, end_idx + 1)]


    @registry.OUTPUT_WRITER_REGISTRY.type_register(name='text')
    @dataclass
    class TextWriter(io_formats.OutputWriter):
        column: str

        def upload_batch(self, results, start_idx, end_idx, job_id) -> str:
            output_dir = self.path.rstrip('/')
            for i, result in enumerate(results):
                text = str(result.get(self.column, ''))
                utils.upload_bytes_to_cloud(text.encode('utf-8'), f'{output_dir}/{start_idx + i:08d}.txt')
            return output_dir

        def reduce_results(self, job_id: str) -> None:
            pass

        def cleanup(self, job_id: str) -> None:
            pass


    @registry.OUTPUT_WRITER_REGISTRY.type_register(name='yaml')
    @dataclass
    class YamlWriter(io_formats.OutputWriter):
        column: str

        def upload_batch(self, results, start_idx, end_idx, job_id) -> str:
            batch_path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
            utils.save_jsonl_to_cloud([{self.column: r.get(self.column)} for r in results], batch_path)
            return batch_path

        def reduce_results(self, job_id: str) -> None:
            import yaml
            all_items: List[Dict[str, Any]] = []
            for batch_path in utils.list_batch_files(self.path, job_id):
                all_items.extend(utils.load_jsonl_from_cloud(batch_path))
            utils.upload_bytes_to_cloud(yaml.dump(all_items, default_flow_style=False).encode(), self.path)

        def cleanup(self, job_id: str) -> None:
            utils.delete_batch_files(self.path, job_id)
            utils.delete_input_batch_files(self.path, job_id)


    @skybatch.remote_function
    def process_items():
        import random

        for batch in skybatch.load():
            results = []
            for item in batch:
                idx = item['index']
                words = [f'token_{j}' for j in range(idx, idx + 5)]
                metadata = {'id': idx, 'squared': idx ** 2, 'tag': random.choice(['alpha', 'beta'])}
                results.append({'text': f'Item {idx}: ' + ' | '.join(words), 'metadata': metadata})
            skybatch.save_results(results)


    ds = skybatch.Dataset(RangeReader(path='', count=20))

    ds.map(
        process_items,
        pool_name='custom-fmt-pool',
        batch_size=5,
        output=[
            TextWriter('output/texts/', column='text'),
            YamlWriter('output/metadata.yaml', column='metadata'),
        ],
    )
"""


def test_a_script_of_the_reference_api_runs_on_a_pool(tmp_path: Path) -> None:
    write(tmp_path, "pool.yaml", "pool:\n  workers: 2\n")
    applied = command("pool", "apply", "pool.yaml", "--pool", "custom-fmt-pool", "-y", cwd=tmp_path)
    assert applied.returncode == 0, applied.stderr

    ended = run_well(write(tmp_path, "process_range.py", SCRIPT))

    texts = sorted((tmp_path / "output" / "texts").iterdir())
    assert [path.name for path in texts] == [f"{i:08d}.txt" for i in range(20)]
    assert texts[7].read_text() == "Item 7: token_7 | token_8 | token_9 | token_10 | token_11"
    rows = yaml.safe_load((tmp_path / "output" / "metadata.yaml").read_text())
    assert [row["metadata"]["squared"] for row in rows] == [i * i for i in range(20)]
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["metadata.yaml", "texts"]
    assert ended.stderr.startswith("skybatch: job ")  # its id comes first of all


def test_partial_results_are_merged_by_hand(tmp_path: Path) -> None:
    """After a failure, `Writer(path).reduce_results(job_id)` merges what is complete, `cleanup` removes the rest."""
    script = write(
        tmp_path,
        "fails.py",
        """
        import skybatch, os, signal
        from skybatch import io_formats
        from dataclasses import dataclass

        @dataclass
        class Count(io_formats.InputReader):
            def __len__(self):
                return 12
            def download_batch(self, start, end, cache_dir):
                return [{'i': i} for i in range(start, end + 1)]

        def keep(batch):
            return batch

        skybatch.Dataset(Count('')).map(keep, batch_size=4, workers=1, output=skybatch.JsonWriter('out.jsonl'))
        """,
    )
    killed = run(script, SKYBATCH_FAILPOINT="reducing")
    assert killed.returncode == -9
    job_id = killed.stderr.split()[2]
    by_hand = write(
        tmp_path,
        "by_hand.py",
        """
        import sys, skybatch
        writer = skybatch.JsonWriter(path='out.jsonl')
        writer.reduce_results(job_id=sys.argv[1])
        writer.cleanup(job_id=sys.argv[1])
        """,
    )
    run_well(by_hand, job_id)
    assert (tmp_path / "out.jsonl").read_text().splitlines() == [f'{{"i":{i}}}' for i in range(12)]
    assert not (tmp_path / ".sky_batch_tmp").exists()
