"""The clients in Python: the argument names the one to run."""

import asyncio
import gc
import importlib.metadata
import io
import json
import platform
import sys
import urllib.parse

#: What all of them send, except botocore, which sends a signature.
AUTHORIZATION = {"Authorization": "Bearer letmein"}


def with_http_client(way, body, urls):
    import http.client

    connection = http.client.HTTPConnection(urllib.parse.urlsplit(urls[0]).netloc)
    for url in urls:
        connection.request("PUT", urllib.parse.urlsplit(url).path, body, AUTHORIZATION)
        with connection.getresponse() as response:
            response.read()
            yield response.status, url


def with_requests(way, body, urls):
    import requests

    with requests.Session() as session:
        for url in urls:
            response = session.put(url, data=body, headers=AUTHORIZATION)
            yield response.status_code, response.url


def with_httpx(way, body, urls):
    import httpx

    with httpx.Client(follow_redirects=True) as client:
        for url in urls:
            response = client.put(url, content=body, headers=AUTHORIZATION)
            yield response.status_code, str(response.url)


def with_aiohttp(way, body, urls):
    import aiohttp

    async def upload():
        async with aiohttp.ClientSession() as session:
            for url in urls:
                async with session.put(
                    url, data=body, headers=AUTHORIZATION, expect100=way == "ask"
                ) as response:
                    await response.read()
                    seen.append((response.status, str(response.url)))

    seen = []
    try:
        asyncio.run(upload())
    finally:
        yield from seen


def with_pycurl(way, body, urls):
    import pycurl

    curl = pycurl.Curl()
    for url in urls:
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.UPLOAD, True)
        curl.setopt(pycurl.READDATA, io.BytesIO(body))
        curl.setopt(pycurl.INFILESIZE, len(body))
        curl.setopt(pycurl.FOLLOWLOCATION, True)
        fields = [f"{name}: {value}" for name, value in AUTHORIZATION.items()]
        curl.setopt(pycurl.HTTPHEADER, [*fields, *(["Expect:"] if way == "plain" else [])])
        curl.perform()
        yield curl.getinfo(pycurl.RESPONSE_CODE), curl.getinfo(pycurl.EFFECTIVE_URL)
    curl.close()


def with_botocore(way, body, urls):
    import botocore.config
    import botocore.exceptions
    import botocore.session

    place = urllib.parse.urlsplit(urls[0])
    s3 = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=f"http://{place.netloc}",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        config=botocore.config.Config(s3={"addressing_style": "path"}),
    )
    if way == "plain":
        s3.meta.events.register(
            "before-send.s3", lambda request, **_: request.headers.pop("Expect", None) and None
        )
    for url in urls:
        bucket, key = urllib.parse.urlsplit(url).path.removeprefix("/").split("/")
        try:
            answer = s3.put_object(Bucket=bucket, Key=key, Body=body)
        except botocore.exceptions.ClientError as error:
            answer = error.response
        yield answer["ResponseMetadata"]["HTTPStatusCode"], url


name = sys.argv[1]
upload = globals()["with_" + name.replace(".", "_")]
if name == "http.client":
    print(json.dumps(f"http.client {platform.python_version()}"), flush=True)
else:
    print(json.dumps(f"{name} {importlib.metadata.version(name)}"), flush=True)
for line in sys.stdin:
    way, size, *urls = line.split()
    seen = []
    try:
        for status, url in upload(way, b"0123456789abcdef" * (int(size) // 16), urls):
            seen.append({"status": status, "url": url})
    except Exception as error:  # noqa: BLE001
        seen.append({"status": type(error).__name__, "message": str(error)})
    gc.collect()  # asyncio closes a connection only then, if it had more to send
    print(json.dumps(seen), flush=True)
