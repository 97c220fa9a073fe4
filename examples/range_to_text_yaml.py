"""No input file at all: a counter is read, every number becomes a text file and an entry of one YAML file.

    python range_to_text_yaml.py [COUNT]      # into ./numbers/

Two writers of the two common kinds: one puts each result straight at its final place, the other stores
batches and merges them at the end.
"""

import sys
from dataclasses import dataclass

import yaml

import skybatch
from skybatch import InputReader, OutputWriter, registry, utils


@registry.INPUT_READER_REGISTRY.type_register(name="count")  # job files can say `type: count`
@dataclass
class Count(InputReader):
    stop: int

    def __len__(self):
        return self.stop

    def download_batch(self, start_idx, end_idx, cache_dir):
        return [{"number": number} for number in range(start_idx, end_idx + 1)]


@registry.OUTPUT_WRITER_REGISTRY.type_register(name="text_files")
@dataclass
class TextFiles(OutputWriter):
    """One file per item. It does not matter if a batch is written twice: the files are the same."""

    column: str

    def upload_batch(self, results, start_idx, end_idx, job_id):
        for number, result in enumerate(results, start_idx):
            utils.upload_bytes_to_cloud(result[self.column].encode(), f"{self.path.rstrip('/')}/{number:08d}.txt")
        return self.path

    def reduce_results(self, job_id):
        pass  # everything is in its place

    def cleanup(self, job_id):
        pass


@registry.OUTPUT_WRITER_REGISTRY.type_register(name="yaml_list")
@dataclass
class YamlList(OutputWriter):
    """One YAML list of all items, in their order, whatever the order in which the batches were done."""

    column: str

    def upload_batch(self, results, start_idx, end_idx, job_id):
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        text = yaml.safe_dump([result[self.column] for result in results], sort_keys=False)
        utils.upload_bytes_to_cloud(text.encode(), path)
        return path

    def reduce_results(self, job_id):
        # The YAML of a list's parts, one after the other, is the YAML of the list: no need to parse it.
        utils.concatenate_batches_to_output(self.path, job_id)

    def cleanup(self, job_id):
        utils.delete_batch_files(self.path, job_id)


@skybatch.remote_function
def describe():
    """A mapper that asks for its batches; it could load a model before the loop."""
    for batch in skybatch.load():
        results = []
        for item in batch:
            number = item["number"]
            divisors = [candidate for candidate in range(1, number + 1) if number % candidate == 0]
            text = f"{number} is divided by {', '.join(map(str, divisors)) or 'everything'}"
            results.append({"text": text, "facts": {"number": number, "prime": len(divisors) == 2}})
        skybatch.save_results(results)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    skybatch.Dataset(Count(path="", stop=count)).map(
        describe,
        batch_size=5,
        output=[TextFiles("numbers/texts/", column="text"), YamlList("numbers/facts.yaml", column="facts")],
    )
