// A RAMBlock: a named region of guest memory, as QEMU announces it at the start of its migration stream.

export interface RamBlock {
  /** QEMU's name of it: "pc.ram", "vga.vram", "/rom@etc/acpi/tables". */
  readonly idstr: string;
  /** A whole number of pages. */
  readonly lengthBytes: number;
}
