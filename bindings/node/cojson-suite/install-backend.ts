/* A setup file: after cojson, before the tests. */
import * as chosen from "backend";
import { install } from "./installed-backend.ts";

install(chosen);
