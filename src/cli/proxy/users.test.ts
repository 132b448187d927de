import { expect, test } from "vitest";
import { UsageError } from "../../base/errors.ts";
import { allowedUids, parseUser, uidOf } from "./users.ts";

const PASSWD =
  "root:x:0:0:root:/root:/bin/bash\nlibvirt-qemu:x:64055:109::/var/lib/libvirt:/usr/sbin/nologin\n";

test("a user is named by a name of /etc/passwd, or by an id, which need not be there", () => {
  expect(uidOf("libvirt-qemu", () => PASSWD)).toBe(64_055);
  expect(uidOf("1000", () => "")).toBe(1000);
});

test.each(["", "nobody-there", "x", "4294967295", "-1", "1e3", "root:x"])("%j names nobody", (text) => {
  expect(() => uidOf(text, () => PASSWD)).toThrow(UsageError);
});

test("root and the proxy's own user always come in, others when they are named, and everybody only by *", () => {
  const own = process.geteuid!();
  expect(allowedUids([])).toEqual([0, own]);
  expect(allowedUids(parseUser("1000", []))).toEqual([0, own, 1000]);
  expect(allowedUids(parseUser("*", [1000]))).toBeUndefined();
});
