import { once } from "node:events";
import net from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { UsageError } from "../base/errors.ts";
import { relayCommand } from "./relay.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

/** Runs the command as a shell would, and hands out what it prints, line by line. */
function run(...args: string[]) {
  const lines: string[] = [];
  vi.spyOn(process.stdout, "write").mockImplementation((text) => lines.push(String(text)) > 0);
  const ended = relayCommand().exitOverride().parseAsync(args, { from: "user" });
  return { lines, ended };
}

async function echoServer(): Promise<net.Server> {
  const server = net.createServer((socket) => void socket.pipe(socket)).listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

async function echoThrough(port: number, text: string): Promise<string> {
  const socket = net.connect({ port, host: "127.0.0.1" });
  socket.end(text);
  let answer = "";
  for await (const bytes of socket) answer += String(bytes);
  return answer;
}

describe("deltavee relay", () => {
  it("prints where it listens, carries, and ends at Ctrl-C with what it carried", async () => {
    const server = await echoServer();
    const { port } = server.address() as net.AddressInfo;
    const { lines, ended } = run(
      ...["--listen", "127.0.0.1:0", "--to", `tcp:127.0.0.1:${port}`, "--rate", "100mbit", "--delay", "20ms"],
    );
    await expect.poll(() => lines.length).toBe(1);
    const pattern =
      /^relay: listening on 127\.0\.0\.1:(\d+) -> 127\.0\.0\.1:(\d+), 100\.0 Mbit\/s, 20 ms each way\n$/;
    expect(lines[0]).toMatch(pattern);
    const [, relayPort, targetPort] = pattern.exec(lines[0]!)!;
    expect(Number(targetPort)).toBe(port);
    expect(await echoThrough(Number(relayPort), "hello")).toBe("hello");
    process.emit("SIGINT");
    await ended;
    server.close();
    expect(lines[1]).toMatch(/^relay: carried 5 B forward, 5 B back; 1 connection in \d+ ms\n$/);
    expect(lines).toHaveLength(2);
  });

  it("prints JSON when asked, and ends at SIGTERM too", async () => {
    const { lines, ended } = run("--listen", "127.0.0.1:0", "--to", "unix:/nowhere", "--json");
    await expect.poll(() => lines.length).toBe(1);
    process.emit("SIGTERM");
    await ended;
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      {
        event: "listening",
        address: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
        to: "unix:/nowhere",
        bytesPerSecond: null,
        delayMs: 0,
        queueMs: 50,
      },
      {
        event: "closed",
        bytesForward: 0,
        bytesBackward: 0,
        connectionsTotal: 0,
        elapsedMs: expect.any(Number),
      },
    ]);
  });

  it("says on standard error why a connection failed, and goes on", async () => {
    const errors = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    const { lines, ended } = run("--listen", "127.0.0.1:0", "--to", "unix:/nowhere", "--json");
    await expect.poll(() => lines.length).toBe(1);
    const port = Number(/:(\d+)$/.exec(JSON.parse(lines[0]!).address)![1]);
    await expect(echoThrough(port, "hello")).rejects.toThrow(/ECONNRESET|EPIPE/);
    expect(errors).toHaveBeenCalledWith(
      "relay: Could not connect to unix:/nowhere: connect ENOENT /nowhere\n",
    );
    process.emit("SIGINT");
    await ended;
    expect(JSON.parse(lines[1]!)).toMatchObject({ event: "closed", connectionsTotal: 1 });
  });

  it.each([
    ["--listen", "nowhere"],
    ["--to", ":80"],
    ["--rate", "100"],
    ["--rate", "0mbit"],
    ["--delay", "20"],
    ["--queue", "-1ms"],
    ["--max-connections", "0"],
    ["--max-connections", "many"],
  ])("refuses %s %s", async (option, value) => {
    const { ended } = run("--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", option, value);
    await expect(ended).rejects.toThrow(UsageError);
  });

  it("shows examples in its help", () => {
    let help = "";
    const command = relayCommand().configureOutput({ writeOut: (text) => (help += text) });
    command.outputHelp();
    expect(help).toContain(
      "deltavee relay --listen 127.0.0.1:4000 --to 127.0.0.1:4444 --rate 100mbit --delay 20ms",
    );
    expect(help).toContain("one way");
  });
});
