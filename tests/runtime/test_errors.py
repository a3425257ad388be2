"""What messages never hold: secrets of URLs."""

import pytest

from tl_dagster import InputError
from tl_dagster.runtime.errors import redact

SIGNED = "https://bucket.example/in/a.png?X-Amz-Credential=AKIA&X-Amz-Signature=5ec4e7"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:5ec4e7@host.example/a.png", "https://host.example/a.png"),
        ("https://me:5ec@4e7@host.example/a.png gone", "https://host.example/a.png gone"),
        (SIGNED, "https://bucket.example/in/a.png?…"),
        (f"403, url='{SIGNED}'", "403, url='https://bucket.example/in/a.png?…'"),
        (f'{{"path": "{SIGNED}", "kind": 1}}', '{"path": "https://bucket.example/in/a.png?…", "kind": 1}'),
        ("HTTPS://host.example/?5ec4e7", "HTTPS://host.example/?…"),
        ("https://host.example/a#access_token=5ec4e7", "https://host.example/a?…"),
        ("abfs://c@account/a.tar?sig=5ec/4e7", "abfs://account/a.tar?…"),
        (
            "s3://bucket/what?.png and https://host.example/b.png",
            "s3://bucket/what?.png and https://host.example/b.png",
        ),
        ("tar://a@b.png@512+9::/photos.tar", "tar://a@b.png@512+9::/photos.tar"),
        ("zip://in/a=b.png::/x?y=z/photos.zip", "zip://in/a=b.png::/x?y=z/photos.zip"),
        ("/photos/a?b=c@d.png", "/photos/a?b=c@d.png"),
    ],
)
def test_secrets_of_urls_are_not_printed(text, shown):
    assert redact(text) == shown and redact(shown) == shown
    assert str(InputError(text)) == shown
