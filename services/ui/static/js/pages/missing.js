// What a visitor sees at an address that is none.
import { absent } from "../absent.js";

export function page(main) {
  main.append(absent("Nothing is at this address",
    `There is no page ${location.pathname.slice(0, 200)}. What it showed may have been deleted, or the address is not complete.`, ["/", "All runs"]));
}
