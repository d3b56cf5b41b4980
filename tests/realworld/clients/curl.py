import json
import subprocess
import sys
import tempfile

version = subprocess.run(["curl", "--version"], check=True, capture_output=True, text=True)
print(json.dumps(" ".join(version.stdout.split()[:2])), flush=True)
for line in sys.stdin:
    way, size, *urls = line.split()
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"0123456789abcdef" * (int(size) // 16))
        file.flush()
        report = '{"status": %{http_code}, "url": "%{url_effective}", "exit": %{exitcode}}\\n'
        command = ["curl", "--silent", "--location", "--write-out", report]
        command += ["--header", "Authorization: Bearer letmein"]
        if way == "plain":
            command += ["--header", "Expect:"]
        for url in urls:
            command += ["--upload-file", file.name, url]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
    seen = [json.loads(line) for line in run.stdout.splitlines()]
    print(json.dumps([x if not x["exit"] else x | {"status": x["exit"]} for x in seen]), flush=True)
